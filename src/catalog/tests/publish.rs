//! What publish hooks send, and where to.

use super::*;
use crate::domain::event::CLOUDEVENTS_JSON;
use crate::domain::hook::PublishAction;
use crate::domain::template::Text;

fn publish(text: &str) -> (PublishAction, String) {
    let set = read(&format!("version: 1\nhooks:\n  - {{ id: a, on: a, run: {{ publish: {text} }} }}\n")).unwrap();
    match &set.hooks()[0].action {
        Action::Publish(publish) => (publish.clone(), set.hooks()[0].action.target()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages() {
    let (plain, target) = publish("{ exchange: orders }");
    assert_eq!((plain.exchange.as_deref(), target.as_str()), (Some("orders"), "publish:orders"));
    assert_eq!((plain.content_type.as_str(), plain.mandatory), (CLOUDEVENTS_JSON, true));
    assert!(plain.server.is_none() && plain.routing_key.is_none() && plain.body.is_none());

    let (own, target) =
        publish("{ body: '{\"n\": {{ event.data.n }}}', type: b, mandatory: false, headers: { X: 1 } }");
    assert_eq!((own.exchange.as_deref(), target.as_str()), (None, "publish:events"));
    assert_eq!((own.content_type.as_str(), own.mandatory), ("application/json", false));
    assert!(own.body.as_ref().is_some_and(Text::is_template));
    assert_eq!(own.headers.iter().map(|(name, text)| (name.as_str(), text.prefix())).collect::<Vec<_>>(), [("X", "1")]);

    let (there, target) =
        publish("{ url: 'amqps://me:${env:TOKEN}@mq.example.com:5679/v', exchange: '', routing_key: q }");
    assert_eq!(target, "amqps://mq.example.com:5679/");
    assert_eq!(there.server.as_ref().unwrap().url.expose().password(), Some("hunter2"));
    assert!(!format!("{there:?}").contains("hunter2"));
    let other = publish("{ url: 'amqps://me:${env:TOKEN}@mq.example.com:5679/w', exchange: '', routing_key: q }").0;
    assert_ne!(Action::Publish(there).identity(), Action::Publish(other).identity());
}

#[test]
fn wrong_messages() {
    let check = |publish: &str, expected: &str| check(&format!("run: {{ publish: {publish} }}"), &[expected]);
    let at = "5:21 hooks[0].run.publish";
    check("{}", &format!("{at}: expected an `exchange`, or a `body` for an event of its own, found neither"));
    check("{ url: 'amqp://h', body: x }", &format!("{at}: expected an `exchange` beside `url`, found none"));
    check(
        "{ url: 'https://hunter2@h', exchange: x }",
        "5:28 hooks[0].run.publish.url: expected a URL such as amqps://host, found another scheme",
    );
    check(
        "{ url: 'amqp://{{ event.id }}', exchange: x }",
        "5:28 hooks[0].run.publish.url: expected a URL that is the same for every event, found a template",
    );
    check(
        "{ exchange: x, content_type: text/plain }",
        "5:50 hooks[0].run.publish.content_type: expected `content_type` with a `body` only, found it alone",
    );
    check(
        "{ body: x, content_type: text }",
        "5:46 hooks[0].run.publish.content_type: expected a media type such as application/json, found \"text\"",
    );
    check(
        "{ body: x, content_type: text/plain }",
        "5:46 hooks[0].run.publish.content_type: expected JSON for an event of the fleet, or an `exchange`, found another \
         media type",
    );
    for wrong in ["heartbeat=x", "auth_mechanism=x"] {
        check(
            &format!("{{ url: 'amqp://h/?{wrong}', exchange: x }}"),
            "5:28 hooks[0].run.publish.url: expected a URL that AMQP can use (vhost, parameters), found something else",
        );
    }
    check(
        &format!("{{ url: 'amqp://h/{}', exchange: x }}", "v".repeat(256)),
        "5:28 hooks[0].run.publish.url: expected a URL that AMQP can use (vhost, parameters), found something else",
    );
    super::check(
        "run: { publish: { exchange: x, tls: { ca: x } } }",
        &[
            "5:41 hooks[0].run.publish.tls: expected certificates of authorities in PEM, found something else",
            "5:41 hooks[0].run.publish.tls: expected `tls` with `url` only, found it alone",
        ],
    );
    check(
        "{ exchange: x, headers: { CC: y } }",
        "5:47 hooks[0].run.publish.headers.CC: expected a header that a hook may set, found \"CC\"",
    );
    check(
        "{ exchange: x, headers: { hookfleet-hops: 0 } }",
        "5:47 hooks[0].run.publish.headers.hookfleet-hops: expected a header that a hook may set, found \"hookfleet-hops\"",
    );
}

/// What is not known here is another process's to judge.
#[test]
fn unknown_values() {
    let read = |url: &str| {
        let text =
            format!("version: 1\nhooks: [{{ id: a, on: a, run: {{ publish: {{ url: '{url}', exchange: x }} }} }}]");
        read_for_others(&[Document::native("hooks.yaml", text)], HINT_MAX).map(|catalog| catalog.hooks)
    };
    let set = read("${env:BROKER}").unwrap();
    assert_eq!(set.hooks()[0].action.target(), "${env:BROKER}/x");
    assert_eq!(read("amqp://u:${env:P}@h/v").unwrap().hooks()[0].action.target(), "amqp://h/x");
    assert!(read("http://${env:HOST}").is_err());
}
