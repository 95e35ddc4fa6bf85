use super::*;

const EVENT: &str = r#"{"id":"e-1","type":"task.failed","data":{"title":"say \"hi\" & <go>\n","n":3,"f":0.5,"yes":true,"none":null,
    "tags":["a","b/c"],"steps":[{"ms":5},{"ms":9}],"up":".."}}"#;

fn variables() -> Variables {
    let labels = [("team".to_owned(), "core".to_owned())].into();
    Variables::new(&Bytes::from_static(EVENT.as_bytes()), &HookId::new("h").unwrap(), &labels, "k/h", 2).unwrap()
}

/// `$` stands for a value from outside.
fn text(text: &str, form: Form) -> Result<Text, Refusal> {
    let mut pieces = Vec::new();
    for (number, literal) in text.split('$').enumerate() {
        if number > 0 {
            pieces.push(Piece::Hidden(Secret::new("{{ s3cret }}\"".to_owned())));
        }
        pieces.push(Piece::Literal(literal.to_owned()));
    }
    Text::new(pieces, form)
}

fn render(source: &str, form: Form) -> String {
    match text(source, form) {
        Err(refusal) => format!("refused: expected {}, found {}", refusal.expected, refusal.found),
        Ok(text) => text.render(&variables()).unwrap_or_else(|error| format!("fails: {error}")),
    }
}

fn check(source: &str, form: Form, expected: &str) {
    let found = render(source, form);
    assert!(
        found == expected || (expected.ends_with('…') && found.starts_with(expected.trim_end_matches('…'))),
        "{source}\n found: {found}"
    );
}

#[test]
fn values_stay_in_their_place() {
    check("no template", Form::Json, "no template");
    check("{ not } one {", Form::Plain, "{ not } one {");
    check(
        "/t/{{ event.data.title }}?n={{ event.data.n }}&f={{ event.data.f }}",
        Form::Url,
        "/t/say%20%22hi%22%20%26%20%3Cgo%3E%0A?n=3&f=0.5",
    );
    check(
        "/{{ event.data.tags | join('/') }}/{{ event.data.tags | tojson }}",
        Form::Url,
        "/a%2Fb%2Fc/%5B%22a%22%2C%22b%2Fc%22%5D",
    );
    check(
        "/{{ event.data.tags }}",
        Form::Url,
        "fails: the template fails on line 1: it does with a value what cannot be done with it",
    );
    check(
        r#"{"t":"{{ event.data.title }}","d":{{ event.data.tags }},"n":{{ event.data.none }}}"#,
        Form::Json,
        r#"{"t":"say \"hi\" & <go>\n","d":["a","b/c"],"n":null}"#,
    );
    check(r#"{"t":{{ event.data.title | tojson }}}"#, Form::Json, r#"{"t":"say \"hi\" & <go>\n"}"#);
    check(
        "{{ event.data.title }}|{{ event.data.yes }}|{{ event.data.tags }}",
        Form::Plain,
        "say \"hi\" & <go>\n|true|[\"a\",\"b/c\"]",
    );
    check("{{ hook.id }} {{ hook.labels.team }} {{ key }} {{ attempt }}", Form::Plain, "h core k/h 2");
    check(
        "{% for step in event.data.steps %}{{ step.ms }}{% if not loop.last %},{% endif %}{% endfor %}",
        Form::Plain,
        "5,9",
    );
    check(
        "{{ event.data.missing | default('x') }}{% if event.data.missing is defined %}y{% endif %}",
        Form::Plain,
        "x",
    );
    check("{# nothing #}{{ event.type | upper }}\n", Form::Plain, "TASK.FAILED\n");
}

#[test]
fn what_is_hidden_is_no_template() {
    check("/$/{{ event.id }}", Form::Url, "/{{ s3cret }}\"/e-1");
    check("$", Form::Json, "{{ s3cret }}\"");
    check("{{ '$' }}", Form::Plain, "refused: expected `${...}` outside of `{{ }}` and `{% %}`, found one inside");
    check(
        "{{ hidden[0] }}$",
        Form::Plain,
        "refused: expected another name, found `hidden`, which stands for what is not in the file",
    );
    let text = text("/$/{{ event.id }}", Form::Url).unwrap();
    assert_eq!(text.render_shown(&variables()).unwrap(), "/[hidden]/e-1");
    assert_eq!((text.prefix(), format!("{text:?}")), ("/{{ s3cret }}\"/", "[hidden]".to_owned()));
}

#[test]
fn what_is_no_template() {
    check(
        "{{ evnt.id }}",
        Form::Plain,
        "refused: expected names that exist: `event`, `hook`, `key`, `attempt`, found `evnt`",
    );
    check("{{ event.id", Form::Plain, "refused: expected a template in Jinja, found one with a mistake: …");
    check("{% if event.id %}", Form::Plain, "refused: expected a template in Jinja, found one with a mistake: …");
    check("{{ event.id | uper }}", Form::Plain, "refused: expected filters that exist (…");
    check("{% set x = event %}", Form::Plain, "refused: expected statements that exist (…");
    check("{% if event.id is odd %}{% endif %}", Form::Plain, "refused: expected tests that exist (…");
    check("{{ range(5) }}", Form::Plain, "refused: expected names that exist…");
    check("{{ 'x' * event.data.n }}", Form::Plain, "refused: expected a template without `*`, found one");
    check(
        "{% for hidden in event.data %}$ {% endfor %}",
        Form::Plain,
        "refused: expected another name, found `hidden`…",
    );
    check("{{ event.data.hidden }}* hidden", Form::Plain, "fails: …");
    check(
        &format!("{{{{ event.id }}}}{}", "x".repeat(65 * 1024)),
        Form::Plain,
        "refused: expected a template of at most 65536 bytes, found …",
    );
}

#[test]
fn failures_at_run_time() {
    let undefined = "fails: the template fails on line 1: it uses a value that the event does not have";
    check("{{ event.data.missing }}", Form::Json, undefined);
    check("{{ event.data.missing.deeper }}", Form::Json, undefined);
    check("{% if event.data.missing %}{% endif %}", Form::Json, undefined);
    check(
        "{{ event.id.nothing() }}",
        Form::Json,
        "fails: the template fails on line 1: it calls something that does not exist",
    );
    let row = "x".repeat(400);
    let much = format!("{{% for a in {row:?} %}}{{% for b in {row:?} %}}{row}{{% endfor %}}{{% endfor %}}");
    check(&much, Form::Json, "fails: the template fails: it prints more than 1 MiB");
    let many = format!(
        "{{% for a in {row:?} %}}{{% for b in {row:?} %}}{{% for c in {row:?} %}}{{% endfor %}}{{% endfor %}}{{% endfor %}}"
    );
    check(&many, Form::Json, "fails: the template fails on line 1: it takes too long");
}

/// An instruction may look at all of an event: of a large one there are few.
#[test]
fn a_large_event_holds_up_nobody() {
    let numbers = (0..100_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let event = format!(r#"{{"id":"e-1","data":{{"a":[{numbers}]}}}}"#);
    let hook = HookId::new("h").unwrap();
    let variables = Variables::new(&Bytes::from(event), &hook, &BTreeMap::new(), "key", 1).unwrap();
    let render =
        |source: &str| Text::new(vec![Piece::Literal(source.to_owned())], Form::Json).unwrap().render(&variables);
    assert_eq!(render("{{ event.id }} {{ event.data.a | length }}").unwrap(), "e-1 100000");
    let every = "{% for x in event.data.a %}{% if x in event.data.a %}{{ x }}{% endif %}{% endfor %}";
    assert!(render(every).unwrap_err().ends_with("it takes too long"));
}

/// What the publisher wrote is what the receiver gets, wherever it is printed.
#[test]
fn numbers_keep_their_digits() {
    let event = r#"{"id":"e-1","data":{"id":1000000000000000000001,"big":123456789012345678901234567890123456789012345,
        "price":12.50,"rate":0.1000000000000000055511151231257827,"e":1E+2,"small":-0,"much":1e999,"one":1.0,"own":1.00,
        "list":[1.10, 2e3],  "half":0.5}}"#;
    let variables = Variables::new(&Bytes::from(event), &HookId::new("h").unwrap(), &BTreeMap::new(), "k", 1).unwrap();
    let check = |source: &str, form: Form, expected: &str| {
        let found = Text::new(vec![Piece::Literal(source.to_owned())], form).unwrap().render(&variables);
        assert_eq!(found.as_deref(), Ok(expected), "{source}");
    };
    check(
        "/{{ event.data.id }}/{{ event.data.big }}",
        Form::Url,
        "/1000000000000000000001/123456789012345678901234567890123456789012345",
    );
    check("/{{ event.data.price }}/{{ event.data.e }}", Form::Url, "/12.50/1E%2B2");
    for form in [Form::Json, Form::Plain] {
        check("{{ event.data.price }} {{ event.data.rate }}", form, "12.50 0.1000000000000000055511151231257827");
        check("{{ event.data.small }} {{ event.data.much }} {{ event.data.half }}", form, "-0 1e999 0.5");
        check("{{ event.data.one }} {{ event.data.own }} {{ event.data.one }}", form, "1.0 1.00 1.0");
        check("{{ event.data.list }} {{ event.data.list | join(';') }}", form, "[1.10, 2e3] 1.10;2e3");
        check("{% for n in event.data.list %}{{ n }} {% endfor %}", form, "1.10 2e3 ");
        check("{{ event.data.price | tojson }} {{ [event.data.price, 'a'] }}", form, "12.50 [12.50,\"a\"]");
        check("{{ event.data.price | trim }}", form, "12.50");
    }
    // They stay numbers.
    check("{% if event.data.price > 12.4 and event.data.price == 12.5 %}y{% endif %}", Form::Json, "y");
    check("{{ event.data.price + 1 }} {{ event.data.id + 1 }}", Form::Json, "13.5 1000000000000000000002");
    check("{% if event.data.own is number and event.data.list is sequence %}y{% endif %}", Form::Json, "y");
}

#[test]
fn data_are_printed_as_they_were_written() {
    let event = r#"{"data": {"b" : [1.0,{"x":"\u00e4"}],"a": null} ,"id":"1"}"#;
    let variables = Variables::new(&Bytes::from(event), &HookId::new("h").unwrap(), &BTreeMap::new(), "k", 1).unwrap();
    for source in ["{{ event.data }}", "{{ event.data | tojson }}"] {
        let text = Text::new(vec![Piece::Literal(source.to_owned())], Form::Json).unwrap();
        assert_eq!(text.render(&variables).unwrap(), r#"{"b" : [1.0,{"x":"\u00e4"}],"a": null}"#);
    }
}

#[test]
fn what_cannot_be_read_fails_where_it_is_used() {
    let hook = HookId::new("h").unwrap();
    let of = |event: String| Variables::new(&Bytes::from(event), &hook, &BTreeMap::new(), "k", 1);
    let torn = of(r#"{"id":"1","torn":"\ud800"}"#.to_owned()).unwrap();
    let render = |source: &str| Text::new(vec![Piece::Literal(source.to_owned())], Form::Json).unwrap().render(&torn);
    assert_eq!(render("{{ event.id }}").unwrap(), "1");
    assert_eq!(render("{{ event.torn }}").unwrap_err(), "the template fails on line 1: it cannot be rendered");
    let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(of(nested(127)).is_ok());
    assert_eq!(of(nested(128)).unwrap_err(), "the event cannot be read");
}
