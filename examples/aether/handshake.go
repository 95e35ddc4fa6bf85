package notifier

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	heartbeat   = 10 * time.Second
	reasonRunes = 300
	unfinished  = "the broker has not finished the handshake; RabbitMQ takes 3 s to refuse a wrong password"
	silent      = "the connection was accepted, but nothing came: is it RabbitMQ, and does the scheme fit (amqp, amqps)?"
)

// openSession connects within the limit of the options. accepted becomes true once somebody has accepted the connection.
func openSession(options Options, exchange string, accepted *atomic.Bool) (*session, *failure) {
	deadline := time.Now().Add(options.Limit)
	var wired atomic.Pointer[wire]
	config := amqp.Config{
		Heartbeat:  heartbeat,
		Locale:     "en_US",
		ChannelMax: 2 * channelsMax,
		Properties: amqp.Table{"product": "hookfleet notifier for Aether", "connection_name": options.Sender},
		Dial: func(network, address string) (net.Conn, error) {
			raw, err := (&net.Dialer{Deadline: deadline}).Dial(network, address)
			if err != nil {
				return nil, err
			}
			accepted.Store(true)
			wired.Store(&wire{Conn: raw, writeLimit: options.Limit})
			return wired.Load(), raw.SetDeadline(deadline) // for TLS and the handshake; the library clears it then
		},
	}
	if options.TLS != nil {
		config.TLSClientConfig = options.TLS.Clone() // the library writes the name of the server into it
	}
	connection, err := dial(options.AMQPURL, config, time.Until(deadline)+silenceMax)
	at := wired.Load()
	switch {
	case err == nil:
		return newSession(connection, at, options, exchange), nil
	case at == nil:
		return nil, &failure{verdict: absent, text: "no connection: " + err.Error(), cause: ErrAbsent}
	}
	at.Close() // the library leaves it open after some errors
	return nil, handshakeFailure(err, at.heard.Load() > 0, !time.Now().Before(deadline))
}

// dial waits no longer than that. The deadline of the socket is enough for silence, but the library waits for itself, for ever,
// when something comes that does not belong into a handshake.
func dial(url string, config amqp.Config, within time.Duration) (*amqp.Connection, error) {
	type dialed struct {
		connection *amqp.Connection
		err        error
	}
	result := make(chan dialed, 1)
	go func() {
		connection, err := amqp.DialConfig(url, config)
		result <- dialed{connection, err}
	}()
	select {
	case it := <-result:
		return it.connection, it.err
	case <-time.After(within):
		return nil, errors.New("the broker says what does not belong there")
	}
}

// handshakeFailure says what went wrong after the connection was accepted. The library calls every end of the connection during
// the login a wrong password, and every end at the vhost a wrong vhost.
func handshakeFailure(err error, heard, late bool) *failure {
	var said *amqp.Error
	var network net.Error
	var untrusted *tls.CertificateVerificationError
	timedOut := errors.As(err, &network) && network.Timeout()
	switch {
	case errors.As(err, &said) && said.Server:
		return failureOf(said)
	case !heard && (said != nil || timedOut):
		return failed(again, silent)
	case errors.As(err, &untrusted):
		return failed(never, "no handshake: "+excerpt(err.Error(), reasonRunes))
	case late:
		return failed(again, unfinished)
	case errors.Is(err, amqp.ErrCredentials):
		return failed(again, "the login has failed: user or password is wrong, or the broker went away")
	case errors.Is(err, amqp.ErrVhost):
		return failed(again, "the vhost was not opened: it is missing, the user may not use it, or the broker went away")
	default:
		return failed(again, "no handshake: "+excerpt(err.Error(), reasonRunes))
	}
}

// failureOf is the end of a channel or connection. What the broker refuses it will refuse again.
func failureOf(said *amqp.Error) *failure {
	switch {
	case said == nil:
		return failed(again, "the connection was closed")
	case !said.Server:
		return failed(again, "the connection was lost: "+excerpt(said.Reason, reasonRunes))
	}
	text := fmt.Sprintf("the broker says: %d %s", said.Code, excerpt(said.Reason, reasonRunes))
	switch said.Code {
	case amqp.NotFound:
		return failed(never, text+" (a worker of the fleet declares it when it starts; is the namespace right?)")
	case amqp.AccessRefused, amqp.PreconditionFailed, amqp.NotAllowed:
		return failed(never, text)
	default:
		return failed(again, text)
	}
}
