package notifier

import (
	"log/slog"
	"sync"
	"time"
)

// How long an absent fleet is not looked for again.
const absenceHold = time.Second

// absence remembers that no fleet is there, so that an engine without one is not slowed down by looking for it.
//
// While the fleet was there at last, a refused connection is tried again within the limit. Once it is known to be absent, one
// event a second makes one try. A nil absence, that of a notifier for which absence is an error, knows nothing.
type absence struct {
	logger *slog.Logger
	mu     sync.Mutex
	was    bool // the fleet was there at last
	logged bool // since it was there
	until  time.Time
}

// holds says that nobody needs to look.
func (a *absence) holds(now time.Time) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.until)
}

// expected says that one refused connection is enough.
func (a *absence) expected() bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.was
}

// found logs the absence once, until the fleet has been there again.
func (a *absence) found(text string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.was, a.until = false, time.Now().Add(absenceHold)
	if !a.logged {
		a.logged = true
		a.logger.Warn("hook events are skipped: no fleet is there", "cause", text)
	}
}

// ended says that somebody has answered.
func (a *absence) ended() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.was, a.logged, a.until = true, false, time.Time{}
}
