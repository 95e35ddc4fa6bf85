module example.com/hookfleet/aether

go 1.24

require github.com/rabbitmq/amqp091-go v1.5.0

// Debian's package golang-github-rabbitmq-amqp091-go-dev, so that no network is needed to build.
// To build with the public module, run: go mod edit -dropreplace github.com/rabbitmq/amqp091-go
// and: go get github.com/rabbitmq/amqp091-go@latest
replace github.com/rabbitmq/amqp091-go => /usr/share/gocode/src/github.com/rabbitmq/amqp091-go
