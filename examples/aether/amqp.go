package notifier

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// An amqpSender keeps one connection to the broker. The first message opens it, and the first after its end opens another.
type amqpSender struct {
	options  Options
	exchange string

	mu      sync.Mutex
	current *session
	opening *opening // nil: none is being opened
	closed  bool
}

// An opening is one try to connect, for which all messages wait that come meanwhile.
type opening struct {
	accepted atomic.Bool   // somebody has accepted the connection
	done     chan struct{} // closed when there is a session or a failure
	session  *session
	failure  *failure
}

func newAMQPSender(options Options) *amqpSender {
	return &amqpSender{options: options, exchange: options.Namespace + ".events"}
}

func (a *amqpSender) send(ctx context.Context, message *message) *failure {
	session, failure := a.session(ctx)
	if failure != nil {
		return failure
	}
	return session.publish(ctx, message)
}

// session is the open one, or the next: connecting goes on when a message has run out of time, for those after it.
func (a *amqpSender) session(ctx context.Context) (*session, *failure) {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil, &failure{verdict: never, text: ErrClosed.Error(), cause: ErrClosed}
	}
	if a.current != nil && !a.current.hasEnded() {
		defer a.mu.Unlock()
		return a.current, nil
	}
	under := a.opening
	if under == nil {
		under = &opening{done: make(chan struct{})}
		a.opening = under
		go a.open(under)
	}
	a.mu.Unlock()
	select {
	case <-under.done:
		return under.session, under.failure
	case <-ctx.Done():
		if !under.accepted.Load() {
			return nil, &failure{verdict: absent, text: "nothing accepts a connection", cause: ErrAbsent}
		}
		return nil, late(ctx, unfinished)
	}
}

func (a *amqpSender) open(under *opening) {
	under.session, under.failure = openSession(a.options, a.exchange, &under.accepted)
	a.mu.Lock()
	a.opening = nil
	if under.session != nil {
		a.current = under.session
		if a.closed {
			go under.session.close(a.options.Limit)
		}
	}
	a.mu.Unlock()
	close(under.done)
}

func (a *amqpSender) close(ctx context.Context) {
	a.mu.Lock()
	a.closed = true
	session := a.current
	a.mu.Unlock()
	if session == nil {
		return
	}
	within := a.options.Limit
	if until, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(until))
	}
	session.close(within)
}
