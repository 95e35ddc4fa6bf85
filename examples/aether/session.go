package notifier

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// How many messages are in flight at a time, each on a channel of its own.
	channelsMax = 64
	// A broker that has been silent for this long after a message is taken for dead: a firewall may have forgotten the
	// connection. Heartbeats would notice it after 15 s.
	silenceMax = time.Second
)

// A session is one connection, from the handshake to whatever ends it. It is not opened again.
//
// A message has a channel to itself until it is confirmed. What the broker says on a channel is then about this message
// alone; on a shared channel the library hands confirms over in the order of messages, so that one that does not come holds
// all others back, and a message that the broker answers by closing the channel takes others with it.
type session struct {
	wire       *wire
	connection *amqp.Connection
	exchange   string
	sender     string
	places     chan struct{} // one entry for each message in flight
	ended      chan struct{} // closed at the end, after cause is set
	ending     sync.Once
	cause      *failure

	mu       sync.Mutex
	idle     []*line
	asked    time.Time     // the first message since the broker was last heard of; zero: no message yet
	progress time.Time     // the last confirm
	blocked  string        // why the broker takes no messages; empty: it does
	open     chan struct{} // closed while it takes them
}

func newSession(connection *amqp.Connection, wired *wire, options Options, exchange string) *session {
	s := &session{
		wire:       wired,
		connection: connection,
		exchange:   exchange,
		sender:     options.Sender,
		places:     make(chan struct{}, channelsMax),
		ended:      make(chan struct{}),
		progress:   time.Now(),
		open:       make(chan struct{}),
	}
	close(s.open)
	closes := connection.NotifyClose(make(chan *amqp.Error, 1))
	go s.gate(connection.NotifyBlocked(make(chan amqp.Blocking)))
	go func() { s.end(failureOf(<-closes)) }()
	return s
}

// end says that nothing more comes, whatever the library still waits for.
func (s *session) end(cause *failure) {
	s.ending.Do(func() {
		s.cause = cause
		close(s.ended)
		s.wire.Close()
	})
}

func (s *session) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// publish writes the message and waits for its confirm.
func (s *session) publish(ctx context.Context, message *message) *failure {
	if failure := s.untilOpen(ctx); failure != nil {
		return failure
	}
	select {
	case s.places <- struct{}{}:
	case <-s.ended:
		return s.cause.before()
	case <-ctx.Done():
		s.suspect(true)
		return late(ctx, s.stage())
	}
	// The library's calls cannot be cancelled, and a message whose time is over keeps its channel until it is confirmed. The
	// channel is not closed: where the broker has closed it too, Close of version 1.5.0 forgets the next channel of its number,
	// and the first answer on that one stops the library for ever.
	result := make(chan *failure, 1)
	go func() {
		defer func() { <-s.places }()
		result <- s.onLine(message)
	}()
	select {
	case failure := <-result:
		return failure
	case <-ctx.Done():
		s.suspect(false)
		return late(ctx, s.stage())
	}
}

// onLine waits until the message is confirmed or refused, or the session has ended.
func (s *session) onLine(message *message) *failure {
	s.asks()
	line, failure := s.line()
	if failure != nil {
		return failure
	}
	line.publish(s.exchange, message, s.sender)
	select {
	case confirm, ok := <-line.confirms:
		if !ok {
			return failureOf(<-line.closes)
		}
		failure = line.outcome(confirm, s.exchange, message)
	case <-s.ended:
		return s.cause
	}
	s.mu.Lock()
	s.idle, s.progress = append(s.idle, line), time.Now()
	s.mu.Unlock()
	return failure
}

// line is the channel that was used last, or a new one.
func (s *session) line() (*line, *failure) {
	s.mu.Lock()
	if last := len(s.idle) - 1; last >= 0 {
		defer s.mu.Unlock()
		line := s.idle[last]
		s.idle = s.idle[:last]
		return line, nil
	}
	s.mu.Unlock()
	line, err := newLine(s.connection)
	if err != nil {
		return nil, failed(again, "no channel: "+excerpt(err.Error(), reasonRunes))
	}
	return line, nil
}

// untilOpen waits while the broker has told publishers to stop, which it does when memory or disk are short.
func (s *session) untilOpen(ctx context.Context) *failure {
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-s.ended:
		return s.cause.before()
	case <-ctx.Done():
		return late(ctx, s.stage())
	}
}

// stage says what a message is waiting for.
func (s *session) stage() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked != "" {
		return "the broker blocks publishers: " + s.blocked
	}
	return "the broker has not confirmed it"
}

// asks remembers that the broker has something to answer.
func (s *session) asks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.IsZero() || s.wire.heardSince(s.asked) {
		s.asked = time.Now()
	}
}

// suspect ends the session once a message has run out of time, if the broker seems to be dead, or if no channel came free for it
// since the broker confirms none of the messages that have them.
func (s *session) suspect(waiting bool) {
	s.mu.Lock()
	blocked, asked, progress := s.blocked != "", s.asked, s.progress
	s.mu.Unlock()
	switch {
	case blocked:
	case !asked.IsZero() && !s.wire.heardSince(asked) && time.Since(asked) >= silenceMax:
		s.end(failed(again, "the broker is silent"))
	case waiting && time.Since(progress) >= silenceMax:
		s.end(failed(again, "the broker confirms nothing"))
	}
}

// gate follows what the broker says of taking messages.
func (s *session) gate(blockings <-chan amqp.Blocking) {
	for blocking := range blockings {
		s.mu.Lock()
		switch {
		case blocking.Active && s.blocked == "":
			s.blocked, s.open = "it says: "+excerpt(blocking.Reason, reasonRunes), make(chan struct{})
		case !blocking.Active && s.blocked != "":
			s.blocked = ""
			close(s.open)
		}
		s.mu.Unlock()
	}
}

// close says goodbye to the broker, and waits no longer than that for its answer.
func (s *session) close(within time.Duration) {
	answered := make(chan struct{})
	go func() {
		s.connection.Close() // which itself would wait for ever
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(within):
	}
	s.end(&failure{verdict: never, text: ErrClosed.Error(), cause: ErrClosed})
}
