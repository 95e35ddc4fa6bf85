package notifier

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A line is a channel with confirms, for one message at a time.
//
// What the library tells has room for what one message can cause, so that it never waits for us. The library's own
// DeferredConfirmation is no way: in version 1.5.0 it misses a confirm that comes before the write has returned.
type line struct {
	channel  *amqp.Channel
	confirms chan amqp.Confirmation
	returns  chan amqp.Return
	closes   chan *amqp.Error
}

func newLine(connection *amqp.Connection) (*line, error) {
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	if err := channel.Confirm(false); err != nil {
		return nil, err
	}
	return &line{
		channel:  channel,
		confirms: channel.NotifyPublish(make(chan amqp.Confirmation, 1)),
		returns:  channel.NotifyReturn(make(chan amqp.Return, 1)),
		closes:   channel.NotifyClose(make(chan *amqp.Error, 1)),
	}, nil
}

// publish writes the message. Its error is told by the end of the channel, too.
//
// The message is mandatory: one that no queue takes comes back before it is confirmed.
func (l *line) publish(exchange string, message *message, sender string) {
	// The library does not end a write by its context.
	l.channel.PublishWithContext(context.Background(), exchange, message.kind, true, false, publishing(message, sender))
}

func (l *line) outcome(confirm amqp.Confirmation, exchange string, message *message) *failure {
	select {
	case said := <-l.returns:
		text := "no queue takes it: exchange " + exchange + ", routing key " + message.kind + " (" + said.ReplyText + ")"
		return &failure{verdict: never, text: text, cause: ErrUnroutable}
	default:
	}
	if !confirm.Ack {
		return failed(again, "the broker has refused it (basic.nack)")
	}
	return nil
}

// publishing is the message as a fleet reads those of other systems: the content type names the system, the body is its own.
func publishing(message *message, sender string) amqp.Publishing {
	return amqp.Publishing{
		MessageId:    message.id,
		ContentType:  "application/vnd.hookfleet.aether+json",
		Timestamp:    message.at,
		DeliveryMode: amqp.Persistent,
		AppId:        sender,
		Body:         message.body,
	}
}
