package notifier

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	connectionsMax = 64
	replyBytesMax  = 64 << 10
	detailRunes    = 500
	// How long the rest of a 2xx is waited for, so that its connection can be used again.
	drainMax = 100 * time.Millisecond
)

// An httpSender posts messages to the fleet's server, over connections that are kept.
type httpSender struct {
	client *http.Client
	url    string
	token  string
	live   atomic.Int64 // connections that the server has accepted and that are open
}

func newHTTPSender(options Options, target *url.URL) *httpSender {
	h := &httpSender{url: target.String(), token: options.Token}
	dialer := &net.Dialer{Timeout: options.Limit}
	h.client = &http.Client{
		Transport: &http.Transport{
			Proxy:               proxy,
			TLSClientConfig:     options.TLS,
			TLSHandshakeTimeout: options.Limit,
			MaxConnsPerHost:     connectionsMax,
			MaxIdleConnsPerHost: connectionsMax,
			IdleConnTimeout:     30 * time.Second,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				raw, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				h.live.Add(1)
				return &liveConn{Conn: raw, live: &h.live}, nil
			},
		},
		// An answer that names another place is an answer: the token is not for that place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h
}

// proxy is that of the environment. The error of the library quotes it, with its password.
func proxy(request *http.Request) (*url.URL, error) {
	found, err := http.ProxyFromEnvironment(request)
	if err != nil {
		return nil, errors.New("expected a URL in HTTP_PROXY or HTTPS_PROXY, found none")
	}
	return found, nil
}

// A liveConn is counted until it is closed.
type liveConn struct {
	net.Conn
	live   *atomic.Int64
	closed atomic.Bool
}

func (c *liveConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.live.Add(-1)
	}
	return c.Conn.Close()
}

func (h *httpSender) send(ctx context.Context, message *message) *failure {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var accepted atomic.Bool
	trace := &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				accepted.Store(true)
			}
		},
		GotConn: func(httptrace.GotConnInfo) { accepted.Store(true) },
	}
	traced := httptrace.WithClientTrace(ctx, trace)
	request, err := http.NewRequestWithContext(traced, http.MethodPost, h.url, bytes.NewReader(message.body))
	if err != nil {
		return failed(never, "no request can be made for this URL")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Hook-Event-Id", message.id)
	if h.token != "" {
		request.Header.Set("Authorization", "Bearer "+h.token)
	}
	response, err := h.client.Do(request)
	if err != nil {
		return transportFailure(ctx, err, accepted.Load() || h.live.Load() > 0)
	}
	defer response.Body.Close()
	if response.StatusCode/100 == 2 {
		time.AfterFunc(drainMax, cancel)
		io.Copy(io.Discard, io.LimitReader(response.Body, replyBytesMax))
		return nil
	}
	return refusal(response)
}

func (h *httpSender) close(context.Context) {
	h.client.CloseIdleConnections()
}

// transportFailure is a request without an answer. Of the error only the part behind the URL is shown.
func transportFailure(ctx context.Context, err error, present bool) *failure {
	if within := (*url.Error)(nil); errors.As(err, &within) {
		err = within.Err
	}
	text := "no answer: " + excerpt(err.Error(), reasonRunes)
	var untrusted *tls.CertificateVerificationError
	switch {
	case !present:
		return &failure{verdict: absent, text: text, cause: ErrAbsent}
	case ctx.Err() != nil:
		return late(ctx, "the server has not answered")
	case errors.As(err, &untrusted):
		return failed(never, text)
	default:
		return failed(again, text)
	}
}

// refusal is an answer that is not 2xx: its status, and what the problem document says. Some pass.
func refusal(response *http.Response) *failure {
	text := fmt.Sprintf("the server answers %s", response.Status)
	if detail := detailOf(response); detail != "" {
		text += ": " + detail
	}
	switch status := response.StatusCode; {
	case status/100 == 3:
		return failed(never, text+" (redirects are not followed)")
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // 0 for a date, which servers seldom send
		return &failure{verdict: again, text: text, after: time.Duration(min(max(seconds, 0), 3600)) * time.Second}
	default:
		return failed(never, text)
	}
}

// detailOf is the detail of a problem document (RFC 9457), if the answer is one.
func detailOf(response *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(response.Body, replyBytesMax))
	var problem struct {
		Detail string `json:"detail"`
	}
	if !strings.Contains(response.Header.Get("Content-Type"), "json") || json.Unmarshal(body, &problem) != nil {
		return ""
	}
	return excerpt(problem.Detail, detailRunes)
}
