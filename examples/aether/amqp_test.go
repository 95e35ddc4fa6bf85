package notifier

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hookfleet/aether/hook"
)

func TestAMQPWithoutABroker(t *testing.T) {
	options := Options{AMQPURL: "amqp://someone:pa%2Fss-word@" + nobody(t), Limit: 500 * time.Millisecond}
	fleet := open(t, options)
	took, err := notify(t, fleet)
	expect(t, err, "not confirmed in time (limit 500ms): no connection: dial tcp")
	if !errors.Is(err, ErrAbsent) || !errors.Is(err, context.DeadlineExceeded) || took < 200*time.Millisecond {
		t.Errorf("after %s found %v", took, err)
	}
	options.SilentWithoutFleet = true
	quiet := open(t, options)
	for range 100 {
		took, err = notify(t, quiet)
		expect(t, err, "")
		if took > 200*time.Millisecond {
			t.Errorf("it took %s to find nobody", took)
		}
	}
	if counts := quiet.Counts(); counts != (Counts{Skipped: 100}) {
		t.Errorf("found %+v", counts)
	}
}

// Something accepts the connection, and is silent from then on or from some point of the handshake on. It is there, so that
// this is an error in any case.
func TestAMQPSilence(t *testing.T) {
	for _, row := range []struct{ stage, expected string }{
		{"start", "not confirmed in time (limit 400ms): the "}, // connection was accepted, or handshake is not finished
		{"tune", "the broker has not finished the handshake"},
		{"channel", "the broker has not confirmed it"},
		{"nonsense", "not confirmed in time (limit 400ms): "}, // versions of the library differ
	} {
		t.Run(row.stage, func(t *testing.T) {
			t.Parallel()
			broker := startFakeBroker(t, func(*link, delivered) {})
			broker.stage = row.stage
			fleet := open(t, Options{SilentWithoutFleet: true, AMQPURL: broker.url, Limit: 400 * time.Millisecond})
			for range 4 {
				_, err := notify(t, fleet)
				expect(t, err, row.expected)
			}
			if broker.connections() < 2 {
				t.Error("the silent connection was not replaced")
			}
		})
	}
	t.Run("a listener", func(t *testing.T) {
		t.Parallel()
		fleet := open(t, Options{AMQPURL: "amqp://" + mute(t), Limit: 400 * time.Millisecond})
		var calls sync.WaitGroup
		for range 50 {
			calls.Add(1)
			go func() {
				defer calls.Done()
				_, err := notify(t, fleet)
				expect(t, err, "not confirmed in time (limit 400ms)")
			}()
		}
		calls.Wait()
	})
}

// An amqpAnswer is what the broker does with a message, by the number of the message among all, from 1.
type amqpAnswer struct {
	published   func(link *link, message delivered, number int)
	messages    int
	connections int
	expected    string
	cause       error
}

var amqpAnswers = map[string]amqpAnswer{
	"ack": {func(link *link, message delivered, _ int) {
		link.ack(message)
	}, 1, 1, "", nil},
	"nack, then ack": {func(link *link, message delivered, number int) {
		if number == 1 {
			link.nack(message)
		} else {
			link.ack(message)
		}
	}, 2, 1, "", nil},
	"lost before the confirm": {func(link *link, message delivered, number int) {
		if number == 1 {
			link.Close()
		} else {
			link.ack(message)
		}
	}, 2, 2, "", nil},
	"no queue": {func(link *link, message delivered, _ int) {
		link.giveBack(message)
		link.ack(message)
	}, 1, 1, "no queue takes it: exchange hookfleet.events, routing key aether.task.onExit (NO_ROUTE)", ErrUnroutable},
	"no exchange": {func(link *link, message delivered, _ int) {
		link.closeChannel(message, 404, "NOT_FOUND - no exchange 'hookfleet.events' in vhost '/'")
	}, 1, 1, "the broker says: 404 NOT_FOUND - no exchange", nil},
	"an internal error, then ack": {func(link *link, message delivered, number int) {
		if number == 1 {
			link.closeChannel(message, 541, "INTERNAL_ERROR")
		} else {
			link.ack(message)
		}
	}, 2, 1, "", nil},
	"no confirm": {func(*link, delivered, int) {}, 1, 1, "the broker has not confirmed it", context.DeadlineExceeded},
	"blocked": {func(link *link, _ delivered, _ int) {
		link.blocked("low on memory")
	}, 1, 1, "the broker blocks publishers: it says: low on memory", context.DeadlineExceeded},
	"blocked for a moment": {func(link *link, message delivered, _ int) {
		link.blocked("low on memory")
		time.Sleep(50 * time.Millisecond)
		link.unblocked()
		link.ack(message)
	}, 1, 1, "", nil},
}

func TestAMQPAnswers(t *testing.T) {
	for name, row := range amqpAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var messages []delivered
			broker := startFakeBroker(t, func(link *link, message delivered) {
				mu.Lock()
				messages = append(messages, message)
				number := len(messages)
				mu.Unlock()
				row.published(link, message, number)
			})
			fleet := open(t, Options{AMQPURL: broker.url, Limit: time.Second})
			_, err := notify(t, fleet)
			expect(t, err, row.expected)
			if row.cause != nil && !errors.Is(err, row.cause) {
				t.Errorf("expected %v in %v", row.cause, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(messages) != row.messages || broker.connections() != row.connections {
				t.Errorf("found %d messages, %d connections", len(messages), broker.connections())
			}
			body := string(must(newMessage(taskEvent())).body)
			for _, message := range messages {
				expected := delivered{
					message.number, message.channel, message.tag, "hookfleet.events", "aether.task.onExit", messages[0].id,
					"application/vnd.hookfleet.aether+json", "aether", true, true, body,
				}
				if message != expected || message.id == "" {
					t.Errorf("expected %+v\nfound    %+v", expected, message)
				}
			}
		})
	}
}

func TestAMQPOverTLS(t *testing.T) {
	broker := startFakeBroker(t, func(link *link, message delivered) { link.ack(message) })
	server := httptest.NewTLSServer(nil) // for its certificate, which is one of 127.0.0.1
	defer server.Close()
	target := must(url.Parse(broker.url)).Host
	listener := tls.NewListener(listen(t), &tls.Config{Certificates: server.TLS.Certificates})
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				return
			}
			go pump(near, far, func([]byte) {})
			go pump(far, near, func([]byte) {})
		}
	}()
	options := Options{AMQPURL: "amqps://someone:pa%2Fss-word@" + listener.Addr().String(), Limit: time.Second}
	_, err := notify(t, open(t, options))
	expect(t, err, "failed to verify certificate")
	options.TLS = server.Client().Transport.(*http.Transport).TLSClientConfig
	_, err = notify(t, open(t, options))
	expect(t, err, "")
}

// While the broker blocks publishers nothing more is written to it, and once it does not, the same connection goes on.
func TestAMQPBlockedBrokersGetNothing(t *testing.T) {
	links := make(chan *link, 10)
	broker := startFakeBroker(t, func(link *link, message delivered) {
		if message.number == 1 {
			link.blocked("low on disk")
		} else {
			link.ack(message)
		}
		links <- link
	})
	fleet := open(t, Options{AMQPURL: broker.url, Limit: 1200 * time.Millisecond})
	for range 2 {
		_, err := notify(t, fleet)
		expect(t, err, "the broker blocks publishers: it says: low on disk")
	}
	(<-links).unblocked()
	_, err := notify(t, fleet)
	expect(t, err, "")
	if link := <-links; link.messages != 2 || broker.connections() != 1 {
		t.Errorf("found %d messages, %d connections", link.messages, broker.connections())
	}
}

// A connection that a firewall has forgotten is given up after one error, not after the heartbeats.
func TestAMQPDeadConnectionsAreReplaced(t *testing.T) {
	broker := startFakeBroker(t, func(link *link, message delivered) {
		if link.number > 1 || message.number == 1 {
			link.ack(message)
		}
	})
	fleet := open(t, Options{AMQPURL: broker.url, Limit: 1200 * time.Millisecond})
	for _, expected := range []string{"", "the broker has not confirmed it", "", ""} {
		_, err := notify(t, fleet)
		expect(t, err, expected)
	}
	if broker.connections() != 2 {
		t.Errorf("found %d connections", broker.connections())
	}
}

// Confirms come in another order than messages, and belong to theirs all the same. One that never comes holds nobody back.
func TestAMQPConfirmsAreMatched(t *testing.T) {
	const calls = 300
	var mu sync.Mutex
	var held []delivered
	seen := 0
	broker := startFakeBroker(t, func(link *link, message delivered) {
		mu.Lock()
		defer mu.Unlock()
		seen++
		if seen == 1 {
			return // never confirmed
		}
		held = append(held, message)
		if len(held) < 20 && seen < calls {
			return
		}
		slices.Reverse(held)
		for _, message := range held {
			if strings.HasSuffix(message.key, "onError") {
				link.giveBack(message)
			}
			link.ack(message)
		}
		held = nil
	})
	fleet := open(t, Options{AMQPURL: broker.url, Limit: 3 * time.Second})
	var group sync.WaitGroup
	var late atomic.Int32
	for number := range calls {
		group.Add(1)
		go func() {
			defer group.Done()
			event, expected := taskEvent(), error(nil)
			if number%3 == 0 {
				event.HookType, expected = hook.OnError, ErrUnroutable
			}
			err := fleet.Notify(context.Background(), event)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				late.Add(1)
			case !errors.Is(err, expected):
				t.Errorf("%s: found %v", event.HookType, err)
			}
		}()
	}
	group.Wait()
	if late.Load() != 1 || broker.connections() != 1 {
		t.Errorf("found %d late events, %d connections", late.Load(), broker.connections())
	}
}

// When the messages that have all the channels are never confirmed, the next ones get a new connection.
func TestAMQPStuckChannelsAreReplaced(t *testing.T) {
	broker := startFakeBroker(t, func(link *link, message delivered) {
		if link.number > 1 {
			link.ack(message)
		}
		link.method(0, 10, 61) // something is heard of the broker
	})
	fleet := open(t, Options{AMQPURL: broker.url, Limit: 1200 * time.Millisecond})
	var calls sync.WaitGroup
	for range channelsMax + 1 {
		calls.Add(1)
		go func() {
			defer calls.Done()
			_, err := notify(t, fleet)
			expect(t, err, "not confirmed in time (limit 1.2s): the broker ")
		}()
	}
	calls.Wait()
	_, err := notify(t, fleet)
	expect(t, err, "")
	if broker.connections() != 2 {
		t.Errorf("found %d connections", broker.connections())
	}
}

// One call that is cancelled takes neither the connection nor the time of the others.
func TestAMQPCallersCancel(t *testing.T) {
	broker := startFakeBroker(t, func(link *link, message delivered) {
		if message.number > 1 {
			link.ack(message)
		}
	})
	fleet := open(t, Options{AMQPURL: broker.url, Limit: 5 * time.Second})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := fleet.Notify(ctx, taskEvent())
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > time.Second {
		t.Errorf("after %s found %v", time.Since(begun), err)
	}
	_, err = notify(t, fleet)
	expect(t, err, "")
	if broker.connections() != 1 {
		t.Errorf("found %d connections", broker.connections())
	}
}
