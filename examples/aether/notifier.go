// Package notifier hands the hook events of the workflow engine Aether to a hookfleet, over AMQP or HTTP.
//
// A [Notifier] is a hook.Notifier of the engine. The engine calls Notify within its own callbacks and waits for it, so that
// every call has a limit: connecting, sending, waiting for the confirm, and all tries together take no longer.
package notifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hookfleet/aether/hook"
)

const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 400 * time.Millisecond
)

// Notifier hands every event over under an id of its own, and answers when the fleet has it for good.
//
// It may be used by any number of goroutines. Make one with [New], and end it with [Notifier.Close].
type Notifier struct {
	limit    time.Duration
	sender   sender // nil: no fleet is configured, which is fine
	secrets  secrets
	absence  *absence // nil: an absent fleet is an error
	inFlight inFlight

	confirmed, failed, skipped atomic.Uint64
}

var _ hook.Notifier = (*Notifier)(nil)

// A sender makes one try to hand a message over. It returns when ctx is over at the latest; nil says that the fleet has it.
type sender interface {
	send(ctx context.Context, message *message) *failure
	close(ctx context.Context)
}

// New checks the options. It opens no connection: the first Notify does.
//
// Errors name the option and what was expected; they show no credentials.
func New(options Options) (*Notifier, error) {
	options = options.withDefaults()
	sender, secrets, err := options.sender()
	if err != nil {
		return nil, err
	}
	n := &Notifier{limit: options.Limit, sender: sender, secrets: secrets}
	if options.SilentWithoutFleet {
		logger := options.Logger
		if logger == nil {
			logger = slog.New(slog.DiscardHandler)
		}
		n.absence = &absence{logger: logger}
		if sender == nil {
			n.absence.found("none is configured")
		}
	}
	return n, nil
}

// Notify hands the event over and waits until the fleet has confirmed it, for the limit at most.
//
// nil: RabbitMQ has the event in a queue, or the HTTP server has answered 2xx. With SilentWithoutFleet, nil also says that no
// fleet is there.
//
// An error says that the event was refused or not confirmed in time; in the second case it may have arrived. An event that
// is tried again keeps its id, and is one event in the fleet. errors.Is finds [ErrClosed], [ErrAbsent], [ErrUnroutable],
// context.DeadlineExceeded (the limit) and context.Canceled in it.
func (n *Notifier) Notify(ctx context.Context, event *hook.Event) error {
	if event == nil {
		return errors.New("hookfleet: expected an event, found nil")
	}
	if !n.inFlight.enter() {
		return fmt.Errorf("hookfleet: %w", ErrClosed)
	}
	defer n.inFlight.leave()
	if n.sender == nil || n.absence.holds(time.Now()) {
		n.skipped.Add(1)
		return nil
	}
	message, err := newMessage(event)
	if err != nil {
		n.failed.Add(1)
		return fmt.Errorf("hookfleet: %s: %w", kindOf(event), err)
	}
	ctx, cancel := context.WithTimeout(ctx, n.limit)
	defer cancel()
	return n.concluded(message, n.deliver(ctx, message))
}

// concluded counts an event and makes the error of its last failure.
func (n *Notifier) concluded(message *message, last *failure) error {
	switch {
	case last == nil:
		n.confirmed.Add(1)
		n.absence.ended()
		return nil
	case last.verdict == absent && n.absence != nil:
		n.skipped.Add(1)
		n.absence.found(n.secrets.hide(last.text))
		return nil
	default:
		n.failed.Add(1)
		if last.verdict != absent {
			n.absence.ended()
		}
		text := fmt.Sprintf("hookfleet: %s, id %s: %s", message.kind, message.id, n.secrets.hide(last.text))
		return &deliveryError{text: text, cause: last.cause}
	}
}

// deliver tries until the event is confirmed, refused, or its time is over.
func (n *Notifier) deliver(ctx context.Context, message *message) *failure {
	if ctx.Err() != nil {
		return n.outOfTime(ctx, failed(again, "it was not sent"), nil)
	}
	var before *failure
	for try := 0; ; try++ {
		last := n.sender.send(ctx, message)
		switch {
		case last == nil:
			return nil
		case ctx.Err() != nil:
			return n.outOfTime(ctx, last, before)
		case last.verdict == never, last.verdict == absent && n.absence.expected():
			return last
		}
		wait := max(backoff(try), last.after)
		if until, _ := ctx.Deadline(); time.Until(until) <= wait {
			return n.outOfTime(ctx, last, nil) // no other try fits into it
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return n.outOfTime(ctx, last, nil)
		}
		before = last
	}
}

// outOfTime says what an event was waiting for when its time was over, and what had gone wrong before.
func (n *Notifier) outOfTime(ctx context.Context, last, before *failure) *failure {
	cause, text := error(context.DeadlineExceeded), fmt.Sprintf("not confirmed in time (limit %s): %s", n.limit, last.text)
	verdict := last.verdict
	if errors.Is(ctx.Err(), context.Canceled) { // too early to know that a fleet is absent
		cause, text, verdict = context.Canceled, "cancelled: "+last.text, again
	}
	if before != nil && before.text != last.text {
		text += "; before that: " + before.text
	}
	if last.cause != nil && !errors.Is(last.cause, cause) {
		cause = errors.Join(cause, last.cause)
	}
	return &failure{verdict: verdict, text: text, cause: cause}
}

// backoff is the wait after a try: 50, 100, 200, then 400 ms, and up to a quarter more.
func backoff(try int) time.Duration {
	wait := min(backoffMin<<min(try, 8), backoffMax)
	return wait + rand.N(wait/4)
}

// Counts are numbers of events since New, of all that Notify has answered before Close.
type Counts struct {
	Confirmed uint64 // the fleet has them
	Failed    uint64 // an error was returned
	Skipped   uint64 // no fleet was there, and SilentWithoutFleet is set
}

// Counts reads how many events came to what.
func (n *Notifier) Counts() Counts {
	return Counts{Confirmed: n.confirmed.Load(), Failed: n.failed.Load(), Skipped: n.skipped.Load()}
}

// Close waits until the events in flight are answered, which takes no longer than the limit, and closes the connections.
// Notify refuses others from the beginning of Close.
//
// It waits until ctx is over at most; then its error is that of ctx, and events in flight fail. More calls are harmless.
func (n *Notifier) Close(ctx context.Context) error {
	err := n.inFlight.close(ctx)
	if n.sender != nil {
		n.sender.close(ctx)
	}
	return err
}

// inFlight counts calls and lets one wait for their end.
type inFlight struct {
	mu     sync.Mutex
	calls  int
	closed bool
	idle   chan struct{} // closed when the last call has left; nil: nobody waits
}

func (f *inFlight) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.calls++
	return true
}

func (f *inFlight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls--
	if f.closed && f.calls == 0 {
		close(f.idle)
	}
}

func (f *inFlight) close(ctx context.Context) error {
	f.mu.Lock()
	if !f.closed {
		f.closed, f.idle = true, make(chan struct{})
		if f.calls == 0 {
			close(f.idle)
		}
	}
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
