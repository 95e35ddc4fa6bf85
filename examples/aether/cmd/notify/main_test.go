package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	notifier "example.com/hookfleet/aether"
)

func TestALineAnEvent(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if body, _ := io.ReadAll(request.Body); strings.Contains(string(body), "onError") {
			writer.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	defer server.Close()
	for _, row := range []struct{ input, lines, expected string }{
		{"", "", ""},
		{`{"HookType": "onExit"}` + "\n\n" + `{"HookType": "onStart", "Unknown": 1}`, "ok onExit|ok onStart", ""},
		{`{"HookType": "onError"}` + "\n" + `{"HookType": "onExit"}` + "\n", "error onError: |ok onExit", "not ok: 1 of 2 events"},
		{"nonsense\n[]\n", "error ?: |error ?: ", "not ok: 2 of 2 events"},
	} {
		var output strings.Builder
		err := run(notifier.Options{URL: server.URL}, strings.NewReader(row.input), &output)
		if (err == nil) != (row.expected == "") || err != nil && err.Error() != row.expected {
			t.Errorf("%s: expected %q, found %v", row.input, row.expected, err)
		}
		found := strings.Split(strings.TrimSuffix(output.String(), "\n"), "\n")
		expected := strings.Split(row.lines, "|")
		if len(found) != len(expected) {
			t.Fatalf("%s: found %q", row.input, found)
		}
		for at, line := range found {
			if !strings.HasPrefix(line, expected[at]) {
				t.Errorf("expected %q, found %q", expected[at], line)
			}
		}
	}
}

func TestSettings(t *testing.T) {
	for _, row := range []struct{ name, value, expected string }{
		{"HOOKFLEET_LIMIT", "500ms", ""},
		{"HOOKFLEET_LIMIT", "500", "HOOKFLEET_LIMIT: expected a duration"},
		{"HOOKFLEET_LIMIT", "0s", "HOOKFLEET_LIMIT: expected a duration over zero"},
		{"HOOKFLEET_WHEN_ABSENT", "silent", ""},
		{"HOOKFLEET_WHEN_ABSENT", "no", "HOOKFLEET_WHEN_ABSENT: expected error or silent"},
	} {
		_, err := optionsOf(func(name string) string {
			if name == row.name {
				return row.value
			}
			return ""
		})
		if (err == nil) != (row.expected == "") || err != nil && !strings.Contains(err.Error(), row.expected) {
			t.Errorf("%s=%s: found %v", row.name, row.value, err)
		}
	}
}
