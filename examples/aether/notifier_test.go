package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hookfleet/aether/hook"
)

// How much longer than its limit a call may take on a busy machine.
const slack = 700 * time.Millisecond

func taskEvent() *hook.Event {
	return &hook.Event{
		HookType:      hook.OnExit,
		Scope:         hook.ScopeTask,
		WorkflowRunID: "wf-1",
		TaskRunID:     "tr-1",
		TaskName:      "my-task",
		Template:      "hook-task",
		Context: map[string]any{
			"workflowRunID": "wf-1", "taskRunID": "tr-1", "taskName": "my-task", "phase": "Succeeded",
		},
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// nobody is an address of loopback that refuses connections.
func nobody(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	listener.Close()
	return listener.Addr().String()
}

// mute accepts connections and never says anything.
func mute(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
	return listener.Addr().String()
}

func open(t *testing.T, options Options) *Notifier {
	t.Helper()
	fleet, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := fleet.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return fleet
}

// notify measures one call, checks its limit, and that its error shows no credentials.
func notify(t *testing.T, fleet *Notifier) (time.Duration, error) {
	t.Helper()
	begun := time.Now()
	err := fleet.Notify(context.Background(), taskEvent())
	took := time.Since(begun)
	if took > fleet.limit+slack {
		t.Errorf("Notify took %s with a limit of %s", took, fleet.limit)
	}
	shows(t, err)
	return took, err
}

func shows(t *testing.T, err error) {
	t.Helper()
	for ; err != nil; err = errors.Unwrap(err) {
		for _, secret := range []string{"pa/ss-word", "pa%2Fss-word", "ss-word", "t0ken-t0ken"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows a credential: %s", err)
			}
		}
	}
}

// expect checks the error of a call by a part of its text; "": there is none.
func expect(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("expected no error, found %v", err)
	case text != "" && (err == nil || !strings.Contains(err.Error(), text)):
		t.Errorf("expected an error with %q, found %v", text, err)
	}
}

func TestBodyIsTheEventAsGoWritesIt(t *testing.T) {
	message, err := newMessage(taskEvent())
	if err != nil {
		t.Fatal(err)
	}
	expected := `{"HookType":"onExit","Scope":"task","WorkflowRunID":"wf-1","WorkflowName":"","TaskRunID":"tr-1",` +
		`"TaskName":"my-task","Template":"hook-task",` +
		`"Context":{"phase":"Succeeded","taskName":"my-task","taskRunID":"tr-1","workflowRunID":"wf-1"}}`
	if string(message.body) != expected {
		t.Errorf("expected %s\nfound    %s", expected, message.body)
	}
	if empty, _ := json.Marshal(hook.Event{}); !strings.HasSuffix(string(empty), `"Context":null}`) {
		t.Errorf("found %s", empty)
	}
}

func TestKinds(t *testing.T) {
	for _, row := range []struct {
		scope    hook.Scope
		kind     hook.Type
		expected string
	}{
		{hook.ScopeTask, hook.OnExit, "aether.task.onExit"},
		{hook.ScopeWorkflow, hook.OnStart, "aether.workflow.onStart"},
		{"", hook.OnError, "aether.onError"},
		{"", "", "aether"},
		{hook.ScopeTask, hook.Type(strings.Repeat("x", 255)), "aether"},
	} {
		if found := kindOf(&hook.Event{Scope: row.scope, HookType: row.kind}); found != row.expected {
			t.Errorf("expected %s, found %s", row.expected, found)
		}
	}
}

func TestIDsAreRandomUUIDs(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 1000 {
		id := newID()
		if !form.MatchString(id) || seen[id] {
			t.Fatalf("found %s", id)
		}
		seen[id] = true
	}
}

func TestOptions(t *testing.T) {
	for _, row := range []struct {
		options  Options
		expected string
	}{
		{Options{}, "AMQPURL, URL: expected one of them, found none"},
		{Options{SilentWithoutFleet: true}, ""},
		{Options{AMQPURL: "amqp://h", URL: "http://h"}, "found both"},
		{Options{AMQPURL: "amqp://h", Limit: -time.Second}, "Limit: expected a duration over zero, found -1s"},
		{Options{AMQPURL: "amqp://someone:pa/ss-word@h"}, "AMQPURL: expected"},
		{Options{AMQPURL: "amqp://someone:pa ss-word@h"}, "AMQPURL: expected"},
		{Options{AMQPURL: "http://someone:pass-word@h"}, "AMQPURL: expected"},
		{Options{AMQPURL: "amqp://h:99999"}, "AMQPURL: expected"},
		{Options{AMQPURL: "amqp://h", Namespace: strings.Repeat("n", 128)}, "Namespace: expected"},
		{Options{AMQPURL: "amqp://h", Sender: strings.Repeat("n", 256)}, "Sender: expected"},
		{Options{AMQPURL: "amqp://someone:pa%2Fss-word@h/vhost"}, ""},
		{Options{URL: "hooks.example.com"}, "URL: expected http:// or https://"},
		{Options{URL: "http://:pa%ss-word@h"}, "URL: expected http:// or https://"},
		{Options{URL: "http://x:pass-word@h"}, "URL: expected no user"},
		{Options{URL: "http://h?token=t0ken-t0ken"}, "URL: expected no user, query"},
		{Options{URL: "http://h", Token: "t0ken-t0ken\n"}, "Token: expected visible ASCII"},
		{Options{URL: "http://h/below/", Token: "t0ken-t0ken"}, ""},
	} {
		_, err := New(row.options)
		expect(t, err, row.expected)
		shows(t, err)
	}
}

func TestNothingConfiguredIsSilent(t *testing.T) {
	var log strings.Builder
	fleet := open(t, Options{SilentWithoutFleet: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		_, err := notify(t, fleet)
		expect(t, err, "")
	}
	if counts := fleet.Counts(); counts != (Counts{Skipped: 3}) {
		t.Errorf("found %+v", counts)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 {
		t.Errorf("expected one line, found %s", log.String())
	}
}

func TestEventsWithoutAForm(t *testing.T) {
	fleet := open(t, Options{SilentWithoutFleet: true, URL: "http://" + nobody(t)})
	expect(t, fleet.Notify(context.Background(), nil), "expected an event, found nil")
	event := taskEvent()
	event.Context["of the host"] = make(chan int)
	expect(t, fleet.Notify(context.Background(), event), "aether.task.onExit: the event has no form in JSON")
}

// A slowSender answers once it is told to.
type slowSender struct {
	answer chan struct{}
	closed chan struct{}
}

func (s slowSender) send(ctx context.Context, _ *message) *failure {
	select {
	case <-s.answer:
		return nil
	case <-ctx.Done():
		return late(ctx, "slow")
	}
}

func (s slowSender) close(context.Context) { close(s.closed) }

func TestCloseWaitsForWhatIsInFlight(t *testing.T) {
	slow := slowSender{make(chan struct{}), make(chan struct{})}
	fleet := &Notifier{limit: time.Minute, sender: slow}
	var calls sync.WaitGroup
	for range 10 {
		calls.Add(1)
		go func() {
			defer calls.Done()
			expect(t, fleet.Notify(context.Background(), taskEvent()), "")
		}()
	}
	for fleet.inFlightNow() < 10 {
		time.Sleep(time.Millisecond)
	}
	ended := make(chan error)
	go func() { ended <- fleet.Close(context.Background()) }()
	time.Sleep(50 * time.Millisecond)
	select {
	case err := <-ended:
		t.Fatalf("Close has not waited: %v", err)
	case <-slow.closed:
		t.Fatal("closed while ten calls were in flight")
	default:
	}
	if err := fleet.Notify(context.Background(), taskEvent()); !errors.Is(err, ErrClosed) {
		t.Errorf("expected ErrClosed, found %v", err)
	}
	close(slow.answer)
	expect(t, <-ended, "")
	calls.Wait()
}

func TestCloseWaitsNoLongerThanItsContext(t *testing.T) {
	fleet := &Notifier{limit: 300 * time.Millisecond, sender: slowSender{nil, make(chan struct{})}}
	failed := make(chan error)
	go func() { failed <- fleet.Notify(context.Background(), taskEvent()) }()
	for fleet.inFlightNow() < 1 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := fleet.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("expected the end of the context, found %v", err)
	}
	expect(t, <-failed, "not confirmed in time (limit 300ms): slow")
}

func (n *Notifier) inFlightNow() int {
	n.inFlight.mu.Lock()
	defer n.inFlight.mu.Unlock()
	return n.inFlight.calls
}

func TestCallersCancel(t *testing.T) {
	fleet := &Notifier{limit: time.Minute, sender: slowSender{nil, make(chan struct{})}}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	err := fleet.Notify(ctx, taskEvent())
	expect(t, err, "cancelled: slow")
	if !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("found %v", err)
	}
}

func TestEventsThatComeTooLateAreNotSent(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	fleet := open(t, Options{SilentWithoutFleet: true, AMQPURL: "amqp://" + nobody(t)})
	expect(t, fleet.Notify(ctx, taskEvent()), "cancelled: it was not sent")
}

func TestBackoffGrows(t *testing.T) {
	for try, least := range []int{50, 100, 200, 400, 400, 400} {
		wait := backoff(try)
		if from := time.Duration(least) * time.Millisecond; wait < from || wait > from+from/4 {
			t.Errorf("try %d: found %s", try, wait)
		}
	}
}
