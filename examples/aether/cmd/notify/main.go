// Command notify hands hook events to a fleet that it reads as JSON, one a line, from stdin.
//
// It prints one line an event, "ok onExit" or "error onExit: …", and exits with 0 if all are ok, else with 1. An event is
// read once the one before it is answered. Settings are read from the environment:
//
//	HOOKFLEET_AMQP_URL       the fleet's RabbitMQ, or
//	HOOKFLEET_URL            the fleet's HTTP server
//	HOOKFLEET_NAMESPACE      the namespace, with AMQP; hookfleet
//	HOOKFLEET_TOKEN          the bearer token, with HTTP; none
//	HOOKFLEET_LIMIT          how long one event may take, such as 500ms; 2s
//	HOOKFLEET_WHEN_ABSENT    error, or silent: no fleet is no error; error
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	notifier "example.com/hookfleet/aether"
	"example.com/hookfleet/aether/hook"
)

// How long the connection may take to close.
const closeLimit = 5 * time.Second

func main() {
	options, err := optionsOf(os.Getenv)
	if err == nil {
		err = run(options, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func optionsOf(get func(string) string) (notifier.Options, error) {
	options := notifier.Options{
		AMQPURL:   get("HOOKFLEET_AMQP_URL"),
		Namespace: get("HOOKFLEET_NAMESPACE"),
		URL:       get("HOOKFLEET_URL"),
		Token:     get("HOOKFLEET_TOKEN"),
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if text := get("HOOKFLEET_LIMIT"); text != "" {
		limit, err := time.ParseDuration(text)
		if err != nil || limit <= 0 {
			return options, fmt.Errorf("HOOKFLEET_LIMIT: expected a duration over zero, such as 500ms, found %q", text)
		}
		options.Limit = limit
	}
	switch text := get("HOOKFLEET_WHEN_ABSENT"); text {
	case "", "error":
	case "silent":
		options.SilentWithoutFleet = true
	default:
		return options, fmt.Errorf("HOOKFLEET_WHEN_ABSENT: expected error or silent, found %q", text)
	}
	return options, nil
}

// run hands over every event of the input. Its error says how many are not ok, or that the input cannot be read.
func run(options notifier.Options, input io.Reader, output io.Writer) error {
	fleet, err := notifier.New(options)
	if err != nil {
		return err
	}
	all, wrong := 0, 0
	lines := bufio.NewReader(input)
	for {
		line, err := lines.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			all++
			if !handOver(fleet, line, output) {
				wrong++
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("cannot read the events: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if err := fleet.Close(ctx); err != nil {
		return err
	}
	if wrong > 0 {
		return fmt.Errorf("not ok: %d of %d events", wrong, all)
	}
	return nil
}

// handOver prints what came of one event, and says whether it is ok.
func handOver(fleet hook.Notifier, line []byte, output io.Writer) bool {
	var event hook.Event
	if err := json.Unmarshal(line, &event); err != nil {
		fmt.Fprintf(output, "error ?: expected an event as JSON: %v\n", err)
		return false
	}
	if err := fleet.Notify(context.Background(), &event); err != nil {
		fmt.Fprintf(output, "error %s: %v\n", event.HookType, err)
		return false
	}
	fmt.Fprintf(output, "ok %s\n", event.HookType)
	return true
}
