package notifier

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A fleet is the exchange of a namespace on a real broker, and a queue for what comes.
type fleet struct {
	url, namespace string
	channel        *amqp.Channel
}

// rabbitMQ makes a fleet on the broker that HOOKFLEET_TEST_AMQP names, such as amqp://guest:guest@127.0.0.1:5672.
func rabbitMQ(t *testing.T, bound bool) *fleet {
	t.Helper()
	at := os.Getenv("HOOKFLEET_TEST_AMQP")
	if at == "" {
		t.Skip("HOOKFLEET_TEST_AMQP is not set")
	}
	connection := must(amqp.Dial(at))
	t.Cleanup(func() { connection.Close() })
	f := &fleet{at, "aether-test-" + newID(), must(connection.Channel())}
	name := f.namespace + ".events"
	if err := f.channel.ExchangeDeclare(name, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.channel.ExchangeDelete(name, false, false)
		f.channel.QueueDelete(name, false, false, false)
	})
	if bound {
		must(f.channel.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}))
		if err := f.channel.QueueBind(name, "#", name, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// taken are all messages of the queue.
func (f *fleet) taken(t *testing.T) []amqp.Delivery {
	t.Helper()
	var taken []amqp.Delivery
	for {
		delivery, ok, err := f.channel.Get(f.namespace+".events", true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return taken
		}
		taken = append(taken, delivery)
	}
}

func TestRabbitMQGetsTheEvent(t *testing.T) {
	f := rabbitMQ(t, true)
	notifier := open(t, Options{AMQPURL: f.url, Namespace: f.namespace, Sender: "nightly"})
	for range 3 {
		_, err := notify(t, notifier)
		expect(t, err, "")
	}
	taken := f.taken(t)
	if len(taken) != 3 || taken[0].MessageId == taken[1].MessageId || len(taken[0].MessageId) != 36 {
		t.Fatalf("found %+v", taken)
	}
	first := taken[0]
	if first.RoutingKey != "aether.task.onExit" || first.ContentType != "application/vnd.hookfleet.aether+json" ||
		first.DeliveryMode != amqp.Persistent || first.AppId != "nightly" || time.Since(first.Timestamp).Abs() > time.Minute ||
		string(first.Body) != string(must(newMessage(taskEvent())).body) || first.Type != "" {
		t.Errorf("found %+v", first)
	}
}

func TestRabbitMQConfirmsAThousandAtOnce(t *testing.T) {
	f := rabbitMQ(t, true)
	notifier := open(t, Options{AMQPURL: f.url, Namespace: f.namespace, Limit: 20 * time.Second})
	var calls sync.WaitGroup
	for range 1000 {
		calls.Add(1)
		go func() {
			defer calls.Done()
			expect(t, notifier.Notify(context.Background(), taskEvent()), "")
		}()
	}
	calls.Wait()
	ids := map[string]bool{}
	for _, delivery := range f.taken(t) {
		ids[delivery.MessageId] = true
	}
	if counts := notifier.Counts(); len(ids) != 1000 || counts != (Counts{Confirmed: 1000}) {
		t.Errorf("found %d ids, %+v", len(ids), counts)
	}
}

func TestRabbitMQWithoutAQueue(t *testing.T) {
	f := rabbitMQ(t, false)
	notifier := open(t, Options{AMQPURL: f.url, Namespace: f.namespace})
	for range 3 {
		_, err := notify(t, notifier)
		expect(t, err, "no queue takes it: exchange "+f.namespace+".events, routing key aether.task.onExit (NO_ROUTE)")
		if !errors.Is(err, ErrUnroutable) {
			t.Errorf("found %v", err)
		}
	}
}

func TestRabbitMQWithoutTheExchange(t *testing.T) {
	f := rabbitMQ(t, true)
	notifier := open(t, Options{AMQPURL: f.url, Namespace: f.namespace + "-other"})
	for range 3 {
		_, err := notify(t, notifier)
		expect(t, err, "the broker says: 404 NOT_FOUND - no exchange")
	}
}

func TestRabbitMQRefusesALogin(t *testing.T) {
	f := rabbitMQ(t, false)
	other := must(url.Parse(f.url))
	other.User = url.UserPassword(other.User.Username(), "pa/ss-word")
	for limit, expected := range map[time.Duration]string{
		time.Second:     "the broker has not finished the handshake",
		4 * time.Second: "user or password is wrong",
	} {
		_, err := notify(t, open(t, Options{AMQPURL: other.String(), Namespace: f.namespace, Limit: limit}))
		expect(t, err, expected)
	}
}

func TestRabbitMQGetsOneIDOverRetries(t *testing.T) {
	f := rabbitMQ(t, true)
	through := losing(t, f.url, 2)
	notifier := open(t, Options{AMQPURL: through, Namespace: f.namespace, Limit: 5 * time.Second})
	_, err := notify(t, notifier)
	expect(t, err, "")
	taken := f.taken(t)
	if len(taken) != 3 {
		t.Fatalf("found %d messages", len(taken))
	}
	for _, delivery := range taken {
		if delivery.MessageId != taken[0].MessageId {
			t.Errorf("one event has the ids %s and %s", taken[0].MessageId, delivery.MessageId)
		}
	}
}

// losing is a way to the broker that hands the first message of so many connections over and then cuts them, so that its
// confirm is lost.
func losing(t *testing.T, broker string, connections int32) string {
	t.Helper()
	target, through := must(url.Parse(broker)), must(url.Parse(broker))
	listener := listen(t)
	through.Host = listener.Addr().String()
	var count atomic.Int32
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target.Host)
			if err != nil {
				near.Close()
				return
			}
			t.Cleanup(func() { near.Close(); far.Close() })
			loses := count.Add(1) <= connections
			var cut atomic.Bool
			go pump(near, far, func(part []byte) {
				if loses && bytes.Contains(part, []byte("application/vnd.hookfleet")) {
					cut.Store(true)
					time.AfterFunc(150*time.Millisecond, func() { near.Close() })
				}
			})
			go pump(far, near, func([]byte) {
				if cut.Load() {
					time.Sleep(time.Second)
				}
			})
		}
	}()
	return through.String()
}

// pump copies what comes, after it has been looked at.
func pump(from, to net.Conn, look func([]byte)) {
	defer to.Close()
	part := make([]byte, 64<<10)
	for {
		count, err := from.Read(part)
		look(part[:count])
		if _, failed := to.Write(part[:count]); failed != nil || err != nil {
			return
		}
	}
}
