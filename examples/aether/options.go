package notifier

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What an option is that is not set.
const (
	DefaultNamespace = "hookfleet"
	DefaultSender    = "aether"
	DefaultLimit     = 2 * time.Second
)

// Options say where the fleet is and how long it may take. Either AMQPURL or URL is set.
type Options struct {
	// AMQPURL is the fleet's RabbitMQ, such as amqps://user:password@mq.example.com/vhost. Events go to the exchange of
	// Namespace, persistent and mandatory.
	AMQPURL string
	// Namespace is that of the fleet: what the names of its exchanges begin with.
	Namespace string
	// Sender is the property app_id of messages: who publishes, which becomes a part of the event's source. Over HTTP it is
	// not sent.
	Sender string

	// URL is the fleet's HTTP server, such as https://hooks.example.com. Events are posted to /v1/hooks/aether below it.
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY count.
	URL string
	// Token is the bearer token for URL; empty: none is sent.
	Token string

	// Limit is how long one Notify may take, for connecting, sending, waiting and all tries together.
	Limit time.Duration
	// SilentWithoutFleet makes it no error that there is no fleet: neither URL is set, or nothing accepts a connection. Such
	// events are counted, the first is logged, and for a second after it no other looks for the fleet. What accepts a
	// connection and then refuses or does not answer is an error all the same.
	SilentWithoutFleet bool
	// TLS holds for amqps and https: roots of trust, or a certificate of ours. nil: the system's roots. For amqps, the URL's
	// parameters cacertfile, certfile and keyfile count if it is nil.
	TLS *tls.Config
	// Logger gets one line when the fleet is found to be absent. nil: none.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.Sender == "" {
		o.Sender = DefaultSender
	}
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	return o
}

// sender makes what the options name; nil without an error: nothing is configured, which is fine.
func (o Options) sender() (sender, secrets, error) {
	switch {
	case o.Limit < 0:
		return nil, nil, fmt.Errorf("Limit: expected a duration over zero, found %s", o.Limit)
	case o.AMQPURL != "" && o.URL != "":
		return nil, nil, errors.New("AMQPURL, URL: expected one of them, found both")
	case o.AMQPURL != "":
		return o.amqpSender()
	case o.URL != "":
		return o.httpSender()
	case o.SilentWithoutFleet:
		return nil, nil, nil
	default:
		return nil, nil, errors.New("AMQPURL, URL: expected one of them, found none")
	}
}

// Errors of the parsers are not shown, since they quote the URL, or a part of the password that looks like a port.
func (o Options) amqpSender() (sender, secrets, error) {
	parsed, err := amqp.ParseURI(o.AMQPURL)
	if err != nil || parsed.Port < 1 || parsed.Port > 65535 {
		return nil, nil, errors.New("AMQPURL: expected amqp:// or amqps:// with user:password@host:port/vhost; " +
			"in user, password and vhost, / is %2F and other signs are percent-encoded too")
	}
	if len(o.Namespace) > 127 {
		return nil, nil, fmt.Errorf("Namespace: expected up to 127 bytes, found %d", len(o.Namespace))
	}
	if len(o.Sender) > 255 {
		return nil, nil, fmt.Errorf("Sender: expected up to 255 bytes, found %d", len(o.Sender))
	}
	known := secrets(nil)
	if written, err := url.Parse(o.AMQPURL); err == nil && written.User != nil {
		if password, ok := written.User.Password(); ok {
			_, encoded, _ := strings.Cut(written.User.String(), ":")
			known = newSecrets(password, encoded)
		}
	}
	return newAMQPSender(o), known, nil
}

func (o Options) httpSender() (sender, secrets, error) {
	parsed, err := url.Parse(o.URL)
	switch {
	case err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https"):
		return nil, nil, errors.New("URL: expected http:// or https:// and a host")
	case parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "":
		return nil, nil, errors.New("URL: expected no user, query or fragment; a token goes into Token")
	case strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, nil, errors.New("Token: expected visible ASCII characters, found others")
	}
	return newHTTPSender(o, parsed.JoinPath("v1", "hooks", "aether")), newSecrets(o.Token), nil
}
