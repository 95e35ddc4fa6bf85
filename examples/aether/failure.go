package notifier

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
)

var (
	// ErrClosed is the error of every Notify after Close.
	ErrClosed = errors.New("the notifier is closed")
	// ErrAbsent says that no fleet is there: its name has no address, or nothing accepts a connection.
	ErrAbsent = errors.New("no fleet is there")
	// ErrUnroutable says that the broker has no queue for the event.
	ErrUnroutable = errors.New("no queue takes the event")
)

// What follows from a failure.
type verdict int

const (
	again  verdict = iota // the next try may succeed
	never                 // no try will succeed
	absent                // nothing accepts a connection; the next try may succeed
)

// A failure is why one try has not handed an event over.
type failure struct {
	verdict verdict
	text    string
	after   time.Duration // the next try comes no sooner than this
	cause   error         // one of the errors above, or that of a context; other errors may show credentials
}

func failed(verdict verdict, text string) *failure {
	return &failure{verdict: verdict, text: text}
}

// before is the same end for a message that was not written until then, and is not to blame.
func (f *failure) before() *failure {
	return &failure{verdict: again, text: f.text, cause: f.cause}
}

// late is the failure of a try that was under way when its time was over.
func late(ctx context.Context, doing string) *failure {
	return &failure{verdict: again, text: doing, cause: context.Cause(ctx)}
}

// A deliveryError is what Notify returns.
type deliveryError struct {
	text  string
	cause error
}

func (e *deliveryError) Error() string { return e.text }
func (e *deliveryError) Unwrap() error { return e.cause }

// Secrets are texts that no error and no log shows.
type secrets []string

func newSecrets(texts ...string) secrets {
	var known secrets
	for _, text := range texts {
		if text != "" {
			known = append(known, text)
		}
	}
	return known
}

func (s secrets) hide(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// excerpt is the beginning of a text from somebody else, on one line.
func excerpt(text string, runesMax int) string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(strings.ToValidUTF8(text, "\uFFFD")))
	if runes := []rune(line); len(runes) > runesMax {
		return string(runes[:runesMax]) + "…"
	}
	return line
}
