package notifier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A receiver answers each request with the next of its answers, and the last of them ever after.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []http.HandlerFunc
	requests []*http.Request
	bodies   []string
}

func receive(t *testing.T, answers ...http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{answers: answers}
	r.Server = httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.mu.Lock()
		answer := r.answers[min(len(r.requests), len(r.answers)-1)]
		r.requests, r.bodies = append(r.requests, request), append(r.bodies, string(body))
		r.mu.Unlock()
		answer(writer, request)
	}))
	t.Cleanup(r.Server.Close)
	t.Cleanup(r.Server.CloseClientConnections)
	return r
}

// ids are those that the requests had.
func (r *receiver) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for _, request := range r.requests {
		ids = append(ids, request.Header.Get("Hook-Event-Id"))
	}
	return ids
}

func status(status int, headers ...string) http.HandlerFunc {
	return func(writer http.ResponseWriter, _ *http.Request) {
		for at := 0; at < len(headers); at += 2 {
			writer.Header().Set(headers[at], headers[at+1])
		}
		writer.WriteHeader(status)
	}
}

func problem(status int, detail string) http.HandlerFunc {
	return func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Type", "application/problem+json")
		writer.WriteHeader(status)
		fmt.Fprintf(writer, `{"title": "x", "detail": %q}`, detail)
	}
}

// hang answers when the client has gone.
func hang(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }

func cut(writer http.ResponseWriter, _ *http.Request) {
	conn, _, _ := writer.(http.Hijacker).Hijack()
	conn.Close()
}

func TestHTTPAnswers(t *testing.T) {
	late := "not confirmed in time (limit 1.2s): the server "
	redirect := status(307, "Location", "/elsewhere")
	seconds := func(text string) http.HandlerFunc { return status(503, "Retry-After", text) }
	for name, row := range map[string]struct {
		answers  []http.HandlerFunc
		requests int // 0: any number
		expected string
	}{
		"200":          {[]http.HandlerFunc{status(200)}, 1, ""},
		"202":          {[]http.HandlerFunc{status(202)}, 1, ""},
		"204":          {[]http.HandlerFunc{status(204)}, 1, ""},
		"503 then 200": {[]http.HandlerFunc{status(503), status(200)}, 2, ""},
		"408, 425, 429, 500": {
			[]http.HandlerFunc{status(408), status(425), status(429), status(500), status(200)}, 5, "",
		},
		"cut then 200": {[]http.HandlerFunc{cut, status(200)}, 2, ""},
		"400":          {[]http.HandlerFunc{status(400)}, 1, "the server answers 400 Bad Request"},
		"401":          {[]http.HandlerFunc{problem(401, "no token")}, 1, "the server answers 401 Unauthorized: no token"},
		"404":          {[]http.HandlerFunc{problem(404, "no dialect")}, 1, "404 Not Found: no dialect"},
		"422":          {[]http.HandlerFunc{problem(422, "two\nlines")}, 1, "422 Unprocessable Entity: two lines"},
		"its token":    {[]http.HandlerFunc{problem(403, "Bearer t0ken-t0ken")}, 1, "403 Forbidden: Bearer ***"},
		"a long detail": {
			[]http.HandlerFunc{problem(400, strings.Repeat("ä", 501))}, 1, strings.Repeat("ä", 500) + "…",
		},
		"a body without end": {[]http.HandlerFunc{problem(400, strings.Repeat("x", 1<<17))}, 1, "400 Bad Request"},
		"redirect":           {[]http.HandlerFunc{redirect}, 1, "307 Temporary Redirect (redirects are not followed)"},
		"503 for too long":   {[]http.HandlerFunc{seconds("60")}, 1, late + "answers 503"},
		"503 for a second":   {[]http.HandlerFunc{seconds("1"), status(200)}, 2, ""},
		"503 until a date": {
			[]http.HandlerFunc{seconds("Wed, 21 Oct 2099 07:28:00 GMT"), status(200)}, 2, "",
		},
		"500 again and again": {[]http.HandlerFunc{status(500)}, 0, late + "answers 500"},
		"hanging":             {[]http.HandlerFunc{hang}, 1, late + "has not answered"},
		"503 then hanging": {
			[]http.HandlerFunc{status(503), hang}, 2, late + "has not answered; before that: the server answers 503",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := receive(t, row.answers...)
			fleet := open(t, Options{URL: receiver.URL, Token: "t0ken-t0ken", Limit: 1200 * time.Millisecond})
			_, err := notify(t, fleet)
			expect(t, err, row.expected)
			ids := receiver.ids()
			if row.requests != 0 && len(ids) != row.requests {
				t.Errorf("expected %d requests, found %d", row.requests, len(ids))
			}
			for _, id := range ids {
				if id != ids[0] || id == "" {
					t.Errorf("the tries have the ids %v", ids)
				}
			}
		})
	}
}

func TestHTTPRequest(t *testing.T) {
	receiver := receive(t, status(204))
	fleet := open(t, Options{URL: receiver.URL + "/below/", Token: "t0ken-t0ken"})
	for range 2 {
		_, err := notify(t, fleet)
		expect(t, err, "")
	}
	request, message := receiver.requests[0], must(newMessage(taskEvent()))
	head := request.Header
	found := []string{
		request.Method, request.URL.String(), head.Get("Content-Type"), head.Get("Authorization"), receiver.bodies[0],
	}
	expected := []string{"POST", "/below/v1/hooks/aether", "application/json", "Bearer t0ken-t0ken", string(message.body)}
	if strings.Join(found, "\n") != strings.Join(expected, "\n") {
		t.Errorf("expected %q, found %q", expected, found)
	}
	if ids := receiver.ids(); ids[0] == ids[1] {
		t.Errorf("two events have the id %s", ids[0])
	}
	if counts := fleet.Counts(); counts != (Counts{Confirmed: 2}) {
		t.Errorf("found %+v", counts)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestHTTPWithoutAServer(t *testing.T) {
	fleet := open(t, Options{URL: "http://" + nobody(t), Limit: 500 * time.Millisecond})
	_, err := notify(t, fleet)
	expect(t, err, "not confirmed in time (limit 500ms): no answer: dial tcp")
	if !errors.Is(err, ErrAbsent) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("found %v", err)
	}
}

func TestHTTPIsSilentWithoutAServer(t *testing.T) {
	var log strings.Builder
	options := Options{SilentWithoutFleet: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	options.URL = "http://" + nobody(t)
	fleet := open(t, options)
	begun := time.Now()
	for range 100 {
		_, err := notify(t, fleet)
		expect(t, err, "")
	}
	if took := time.Since(begun); took > slack {
		t.Errorf("a hundred events without a fleet took %s", took)
	}
	if counts := fleet.Counts(); counts != (Counts{Skipped: 100}) || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("found %+v, %s", counts, log.String())
	}
}

func TestHTTPServersThatDoNotAnswerAreThere(t *testing.T) {
	fleet := open(t, Options{SilentWithoutFleet: true, URL: "http://" + mute(t), Limit: 300 * time.Millisecond})
	_, err := notify(t, fleet)
	expect(t, err, "the server has not answered")
}

func TestHTTPConfirmsByTheHead(t *testing.T) {
	receiver := receive(t, func(writer http.ResponseWriter, request *http.Request) {
		writer.WriteHeader(200)
		writer.(http.Flusher).Flush()
		hang(writer, request)
	})
	took, err := notify(t, open(t, Options{URL: receiver.URL}))
	expect(t, err, "")
	if took > drainMax+slack {
		t.Errorf("a body without end was waited for: %s", took)
	}
}

func TestHTTPConcurrently(t *testing.T) {
	receiver := receive(t, status(503), status(204))
	fleet := open(t, Options{URL: receiver.URL, Limit: 10 * time.Second})
	var calls sync.WaitGroup
	for range 500 {
		calls.Add(1)
		go func() {
			defer calls.Done()
			expect(t, fleet.Notify(context.Background(), taskEvent()), "")
		}()
	}
	calls.Wait()
	ids := map[string]bool{}
	for _, id := range receiver.ids() {
		ids[id] = true
	}
	if len(ids) != 500 || len(receiver.ids()) != 501 {
		t.Errorf("found %d requests with %d ids", len(receiver.ids()), len(ids))
	}
}

func TestHTTPCertificates(t *testing.T) {
	server := httptest.NewTLSServer(status(204))
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	took, err := notify(t, open(t, Options{URL: server.URL}))
	expect(t, err, "no answer: tls: failed to verify certificate")
	if took > slack {
		t.Errorf("a certificate that is not trusted was tried for %s", took)
	}
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
	_, err = notify(t, open(t, Options{URL: server.URL, TLS: trusting}))
	expect(t, err, "")
}
