// Package hook stands in for the package hook of the engine, so that this example builds without the engine.
//
// A host that has the engine replaces the import of this package by "github.com/BabySid/aether-go/hook" and deletes it.
// Names, types and the order of fields are the engine's, since the JSON of an event is made from them.
package hook

import "context"

// Type says what has happened.
type Type string

// What the engine tells of workflows and tasks. A workflow is never suspended or resumed.
const (
	OnStart   Type = "onStart"
	OnSuccess Type = "onSuccess"
	OnFailure Type = "onFailure"
	OnError   Type = "onError" // of timeouts as well
	OnSuspend Type = "onSuspend"
	OnResume  Type = "onResume"
	OnCancel  Type = "onCancel"
	OnExit    Type = "onExit" // after every other end
)

// Scope says what it has happened to.
type Scope string

// The two scopes.
const (
	ScopeWorkflow Scope = "workflow"
	ScopeTask     Scope = "task"
)

// Event is what a Notifier is told. It has no tags: its JSON has these names.
type Event struct {
	HookType      Type
	Scope         Scope
	WorkflowRunID string
	WorkflowName  string         // empty for tasks
	TaskRunID     string         // empty for workflows
	TaskName      string         // empty for workflows
	Template      string         // the template that the hook names
	Context       map[string]any // the ids and names again; with OnExit also phase
}

// Notifier is told every event that a workflow has a hook for. The engine calls it within its own callbacks, waits for it,
// and hands an error to its ErrorSink.
type Notifier interface {
	Notify(ctx context.Context, event *Event) error
}
