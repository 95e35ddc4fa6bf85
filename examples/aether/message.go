package notifier

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"example.com/hookfleet/aether/hook"
)

// The longest routing key that AMQP has room for.
const keyBytesMax = 255

// A message is one event on its way. It is the same for every try.
type message struct {
	id   string
	kind string // such as aether.task.onExit
	body []byte
	at   time.Time
}

func newMessage(event *hook.Event) (*message, error) {
	body, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("the event has no form in JSON: %w", err)
	}
	return &message{id: newID(), kind: kindOf(event), body: body, at: time.Now()}, nil
}

// kindOf is the type that the event gets in the fleet. Here it is the routing key, by which other queues can be bound.
func kindOf(event *hook.Event) string {
	parts := []string{"aether"}
	for _, part := range []string{string(event.Scope), string(event.HookType)} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if kind := strings.Join(parts, "."); len(kind) <= keyBytesMax {
		return kind
	}
	return parts[0]
}

// newID is a random UUID (version 4).
func newID() string {
	var bytes [16]byte
	rand.Read(bytes[:]) // never fails: see its documentation
	bytes[6] = bytes[6]&0x0f | 0x40
	bytes[8] = bytes[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", bytes[:4], bytes[4:6], bytes[6:8], bytes[8:10], bytes[10:])
}
