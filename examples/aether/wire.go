package notifier

import (
	"net"
	"sync/atomic"
	"time"
)

// A wire is a connection to the broker that never takes a write for longer than its limit, and knows when the broker was last
// heard of. A broker that is out of memory stops reading: without a deadline of its own a write would then wait for ever.
type wire struct {
	net.Conn
	writeLimit time.Duration
	heard      atomic.Int64 // nanoseconds since 1970; 0: not yet
}

func (w *wire) Read(bytes []byte) (int, error) {
	count, err := w.Conn.Read(bytes)
	if count > 0 {
		w.heard.Store(time.Now().UnixNano())
	}
	return count, err
}

func (w *wire) Write(bytes []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(w.writeLimit)); err != nil {
		return 0, err
	}
	return w.Conn.Write(bytes)
}

// heardSince says whether anything came from the broker at that moment or later.
func (w *wire) heardSince(moment time.Time) bool {
	return w.heard.Load() >= moment.UnixNano()
}
