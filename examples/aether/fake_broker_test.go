package notifier

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// A fakeBroker speaks as much of AMQP 0-9-1 as a publisher hears, so that a test can let it do what RabbitMQ does seldom.
type fakeBroker struct {
	url string
	// published is called for each message, on the goroutine of its connection.
	published func(link *link, delivery delivered)

	mu    sync.Mutex
	links int
	stage string // at which a connection hears nothing more: start, tune, channel; nonsense: or hears that; empty: at none
}

// A link is one connection to the fake broker.
type link struct {
	net.Conn
	number   int // from 1
	messages int
	tags     map[uint16]uint64 // the last of each channel
}

type delivered struct {
	number               int // on its connection, from 1
	channel              uint16
	tag                  uint64
	exchange, key        string
	id, contentType, app string
	mandatory            bool
	persistent           bool
	body                 string
}

func startFakeBroker(t *testing.T, published func(*link, delivered)) *fakeBroker {
	t.Helper()
	listener := listen(t)
	broker := &fakeBroker{url: "amqp://someone:pa%2Fss-word@" + listener.Addr().String(), published: published}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			broker.mu.Lock()
			broker.links++
			link := &link{Conn: conn, number: broker.links, tags: map[uint16]uint64{}}
			broker.mu.Unlock()
			go broker.serve(link)
		}
	}()
	return broker
}

func (b *fakeBroker) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.links
}

// serve answers methods by class and number until the connection ends.
func (b *fakeBroker) serve(link *link) {
	defer link.Close()
	reader := bufio.NewReader(link)
	if _, err := io.ReadFull(reader, make([]byte, 8)); err != nil {
		return
	}
	if b.stage == "start" {
		io.Copy(io.Discard, reader)
		return
	}
	if b.stage == "nonsense" {
		link.method(7, 20, 11, long(0)) // of a channel that was not opened
	}
	link.method(0, 10, 10, []byte{0, 9}, long(0), longText("PLAIN"), longText("en_US"))
	parts := map[uint16]*delivered{}
	for {
		kind, channel, payload, err := readFrame(reader)
		if err != nil {
			return
		}
		switch {
		case kind == 1:
			class, method := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])
			if class == 60 && method == 40 {
				parts[channel] = readPublish(payload[4:])
			} else if !b.answer(link, channel, class, method) {
				io.Copy(io.Discard, reader)
				return
			}
		case kind == 2:
			readProperties(payload[12:], parts[channel])
		case kind == 3:
			link.messages++
			link.tags[channel]++
			message := parts[channel]
			message.number, message.channel, message.tag = link.messages, channel, link.tags[channel]
			message.body = string(payload)
			b.published(link, *message)
		}
	}
}

// answer says whether the connection is to go on.
func (b *fakeBroker) answer(link *link, channel, class, method uint16) bool {
	switch [2]uint16{class, method} {
	case [2]uint16{10, 11}: // start-ok
		if b.stage == "tune" {
			return false
		}
		link.method(0, 10, 30, short(100), long(131072), short(10))
	case [2]uint16{10, 40}:
		link.method(0, 10, 41, []byte{0})
	case [2]uint16{10, 50}:
		link.method(0, 10, 51)
	case [2]uint16{20, 10}:
		if b.stage == "channel" {
			return false
		}
		link.tags[channel] = 0
		link.method(channel, 20, 11, long(0))
	case [2]uint16{20, 40}:
		link.method(channel, 20, 41)
	case [2]uint16{85, 10}:
		link.method(channel, 85, 11)
	}
	return true
}

func (l *link) ack(m delivered)  { l.method(m.channel, 60, 80, longLong(m.tag), []byte{0}) }
func (l *link) nack(m delivered) { l.method(m.channel, 60, 120, longLong(m.tag), []byte{0}) }

func (l *link) blocked(reason string) { l.method(0, 10, 60, shortText(reason)) }
func (l *link) unblocked()            { l.method(0, 10, 61) }

func (l *link) closeChannel(m delivered, code uint16, text string) {
	l.method(m.channel, 20, 40, short(code), shortText(text), short(60), short(40))
}

// giveBack returns a message that no queue has taken.
func (l *link) giveBack(message delivered) {
	l.method(message.channel, 60, 50, short(312), shortText("NO_ROUTE"), shortText(message.exchange), shortText(message.key))
	parts := [][]byte{short(60), short(0), longLong(uint64(len(message.body))), short(1 << 7), shortText(message.id)}
	l.frame(2, message.channel, bytes.Join(parts, nil))
	l.frame(3, message.channel, []byte(message.body))
}

func (l *link) method(channel, class, method uint16, arguments ...[]byte) {
	l.frame(1, channel, append(append(short(class), short(method)...), bytes.Join(arguments, nil)...))
}

func (l *link) frame(kind byte, channel uint16, payload []byte) {
	frame := append([]byte{kind}, short(channel)...)
	frame = append(append(frame, long(uint32(len(payload)))...), payload...)
	l.Write(append(frame, 0xCE))
}

func readFrame(reader io.Reader) (kind byte, channel uint16, payload []byte, err error) {
	head := make([]byte, 7)
	if _, err = io.ReadFull(reader, head); err != nil {
		return
	}
	payload = make([]byte, binary.BigEndian.Uint32(head[3:])+1)
	_, err = io.ReadFull(reader, payload)
	return head[0], binary.BigEndian.Uint16(head[1:]), payload[:len(payload)-1], err
}

func readPublish(arguments []byte) *delivered {
	rest := arguments[2:]
	exchange, rest := readShortText(rest)
	key, rest := readShortText(rest)
	return &delivered{exchange: exchange, key: key, mandatory: rest[0]&1 == 1}
}

// readProperties reads those that the notifier sets, in the order of their flags.
func readProperties(bytes []byte, into *delivered) {
	flags, rest := binary.BigEndian.Uint16(bytes), bytes[2:]
	if flags&(1<<15) != 0 {
		into.contentType, rest = readShortText(rest)
	}
	if flags&(1<<12) != 0 {
		into.persistent, rest = rest[0] == 2, rest[1:]
	}
	if flags&(1<<7) != 0 {
		into.id, rest = readShortText(rest)
	}
	if flags&(1<<6) != 0 {
		rest = rest[8:]
	}
	if flags&(1<<3) != 0 {
		into.app, _ = readShortText(rest)
	}
}

func readShortText(bytes []byte) (string, []byte) {
	return string(bytes[1 : 1+bytes[0]]), bytes[1+bytes[0]:]
}

func short(value uint16) []byte    { return binary.BigEndian.AppendUint16(nil, value) }
func long(value uint32) []byte     { return binary.BigEndian.AppendUint32(nil, value) }
func longLong(value uint64) []byte { return binary.BigEndian.AppendUint64(nil, value) }
func shortText(text string) []byte { return append([]byte{byte(len(text))}, text...) }
func longText(text string) []byte  { return append(long(uint32(len(text))), text...) }
