//! Templates of hostile files. The worst that one does is an error: never an abort, and never more work or memory than the limits
//! allow.

use std::time::Duration;

use proptest::prelude::*;
use tokenizer::{Chat, ChatMessage, GenerationPrompt, TokenizerError};

use crate::chat::{render, with_template};

fn said(template: &str) -> Result<String, TokenizerError> {
    render(template, &[ChatMessage::new("user", "hello")])
}

/// Each is `depth` levels deep.
fn deep(depth: usize) -> Vec<(&'static str, String)> {
    let nested = |open: &str, core: &str, close: &str| {
        format!("{{{{ {}{core}{} }}}}", open.repeat(depth), close.repeat(depth))
    };
    vec![
        ("parentheses", nested("(", "1", ")")),
        ("lists", nested("[", "1", "]")),
        ("dictionaries", nested("{'a':", "1", "}")),
        ("not", nested("not ", "1", "")),
        ("minus", nested("-", "1", "")),
        ("calls", nested("range(", "1", ")")),
        ("subscripts", nested("a[", "1", "]")),
        ("choices", nested("1 if 1 else ", "1", "")),
        ("sums", nested("1 + ", "1", "")),
        ("joined", nested("'a' ~ ", "1", "")),
        ("powers", nested("1 ** ", "1", "")),
        ("and", nested("1 and ", "1", "")),
        ("comparisons", nested("1 < ", "1", "")),
        ("filters", nested("", "1", " | string")),
        ("tests", nested("", "1", " is defined")),
        ("attributes", nested("", "a", ".b")),
        ("methods", nested("", "'a'", ".strip()")),
        ("blocks", format!("{}x{}", "{% if 1 %}".repeat(depth), "{% endif %}".repeat(depth))),
        ("loops", format!("{}x{}", "{% for i in [1] %}".repeat(depth), "{% endfor %}".repeat(depth))),
        ("elif", format!("{{% if 0 %}}{}x{{% endif %}}", "{% elif 0 %}".repeat(depth))),
        ("macros", format!("{}x{}", "{% macro m() %}".repeat(depth), "{% endmacro %}".repeat(depth))),
        ("sets", format!("{}x{}", "{% set a %}".repeat(depth), "{% endset %}".repeat(depth))),
    ]
}

#[test]
fn a_deep_template_is_compiled_or_refused() {
    for depth in [10, 1000, 50_000] {
        for (name, template) in deep(depth) {
            // The engine's parser has a limit of its own for what nests by brackets and blocks.
            if let Err(error) = said(&template) {
                let message = error.to_string();
                assert!(message.contains("the chat template "), "{name} {depth}: {message}");
            } else {
                assert!(depth <= 1000, "{name}");
            }
        }
    }
    let message = said(&deep(50_000)[3].1).unwrap_err().to_string();
    assert!(message.contains("expected at most 4096 words and signs in a tag, found 50001"), "{message}");
}

#[test]
fn a_namespace_does_not_hold_itself() {
    for (held, error) in [
        ("n", "a namespace may not hold a namespace"),
        ("[n]", "a list or dictionary may not hold a namespace"),
        ("{'a': [n]}", "a list or dictionary may not hold a namespace"),
        ("namespace()", "a namespace may not hold a namespace"),
        ("range", "a namespace may not hold a macro, a loop or a function"),
    ] {
        let message =
            said(&format!("{{% set n = namespace() %}}{{% set n.a = {held} %}}{{{{ n }}}}")).unwrap_err();
        assert!(message.to_string().contains(error), "{held}: {message}");
    }
    for nested in ["[n.a]", "{'b': n.a}"] {
        let grow = |times| {
            format!(
                "{{% set n = namespace(a=[]) %}}{{% for i in range({times}) %}}{{% set n.a = {nested} %}}{{% endfor %}}ok"
            )
        };
        assert_eq!(said(&grow(31)).unwrap(), "ok");
        let message = said(&grow(100_000)).unwrap_err().to_string();
        assert!(message.contains("more than 32 levels of lists and dictionaries"), "{message}");
    }
    let list = "{% set n = namespace(a=[]) %}{% for i in range(300) %}{% set n.a = n.a + [i] %}{% endfor %}{{ n.a | length }} {{ n.a | last }}";
    assert_eq!(said(list).unwrap(), "300 299");
}

#[test]
fn endless_work_and_memory_end_with_an_error() {
    let doubled = |value: &str, step: &str, end: &str| {
        format!(
            "{{% set n = namespace(a={value}) %}}{{% for i in range(30) %}}{{% set n.a = {step} %}}{{% endfor %}}{end}"
        )
    };
    let repeated = |value: &str, step: &str| {
        format!("{{% set a = {value} %}}{{% for i in range(100000) %}}{{% set b = {step} %}}{{% endfor %}}")
    };
    let (text, list) = ("'x' * 9000000", "range(90000) | list");
    // Two equal texts that are not one: whoever compares them reads all of both.
    let compared = |step: &str| {
        format!(
            "{{% set a = 'x' * 9000000 %}}{{% set b = 'x' * 9000000 %}}{{% for i in range(1000) %}}{{% set c = {step} %}}{{% endfor %}}"
        )
    };
    let templates = [
        doubled("[1]", "n.a + n.a", ""),
        doubled("'x'", "n.a ~ n.a", ""),
        doubled("[1]", "[n.a, n.a]", "{{ n.a | tojson }}"),
        doubled("[1]", "{'x': n.a, 'y': n.a}", "{{ n.a }}"),
        "{{ 'x' * 1000000000 }}".to_owned(),
        "{{ [1] * 1000000000 }}".to_owned(),
        "{{ 'x' | indent(1000000000, true) }}".to_owned(),
        "{{ '%1000000000s' | format('x') }}".to_owned(),
        "{{ ('x' * 9000000).join(range(100000)) }}".to_owned(),
        "{{ '{:>99999999999}'.format(1) }}".to_owned(),
        "{{ '{:>18446744073709551615}'.format(1) }}".to_owned(),
        "{{ '{:.99999999999999999999f}{}'.format(1.5, 2) }}".to_owned(),
        "{{ [1] | batch(1000000000, 0) | list }}".to_owned(),
        "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}".to_owned(),
        "{% for i in range(100000) %}{{ 'x' * 1000000 }}{% endfor %}".to_owned(),
        repeated(text, "a.count('y')"),
        repeated(text, "a.strip() ~ ''"),
        repeated(text, "a.split('y')"),
        repeated(list, "a.count(-1)"),
        repeated(list, "a | sort | length"),
        repeated(list, "a | unique | length"),
        repeated(list, "-1 in a"),
        repeated(list, "a | max"),
        repeated(list, "a | tojson"),
        // Repeated lists are lazy, and what is in them is gone through each time.
        "{{ ([[1] * 1000000] * 1000000) | join }}".to_owned(),
        "{{ [[1] * 1000000] * 1000000 }}".to_owned(),
        "{% set a = [[1] * 1000000] * 1000000 %}{{ a | join }}".to_owned(),
        "{% macro f(a) %}{{ a | join }}{% endmacro %}{{ f([[1] * 1000000] * 1000000) }}".to_owned(),
        "{% macro f(a) %}{{ a | join }}{% endmacro %}{{ f(a=1000000 * [[1] * 1000000]) }}".to_owned(),
        "{{ ((1, 2) * 1000000) | length }}{{ ((1, 2) * 1000000) | length }}".to_owned(),
        compared("a == b"),
        compared("a != b"),
        compared("a<b"),
        compared("a in [b]"),
        compared("[a] == [b]"),
        compared("a is eq b"),
        compared("a is in([b])"),
        compared("[b].count(a)"),
        compared("[a, b] | sort | length"),
        compared("[a, b] | unique | length"),
        compared("[a, b] | max | length"),
        compared("([a] * 1000) | select('==', b) | list"),
    ];
    for template in templates {
        let message = said(&template).expect_err(&template).to_string();
        let limits = ["ran out of fuel", "too large", "recursion limit"];
        assert!(limits.iter().any(|limit| message.contains(limit)), "{template}: {message}");
    }
    let message = said("{{ [1] | tojson(indent=1000000000) }}").unwrap_err().to_string();
    assert!(message.contains("tojson: expected an indent of at most 16, found 1000000000"), "{message}");
    let message = said(&"x".repeat((1 << 20) + 1)).unwrap_err().to_string();
    assert!(message.contains("expected at most 1048576 bytes"), "{message}");
}

/// Each step has the one before it twice, and none is longer than two.
#[test]
fn lists_that_share_their_parts_are_counted_whole() {
    let unrolled = |first: &str, step: &str, end: &str| {
        let mut template = format!("{{% set a0 = {first} %}}");
        for i in 0..60 {
            let next = step.replace('@', &format!("a{i}"));
            template += &format!("{{% set a{} = {next} %}}", i + 1);
        }
        template + &end.replace('@', "a60")
    };
    let nested = |open: &str, close: &str, end: &str| {
        let opened: String = (0..60)
            .map(|i| open.replace('@', &format!("a{i}")).replace('#', &format!("a{}", i + 1)))
            .collect();
        format!("{{% set a0 = [1] %}}{opened}{}{}", end.replace('@', "a60"), close.repeat(60))
    };
    let macros = |step: &str, end: &str| {
        format!(
            "{{% macro f(a, n) %}}{{% if n > 0 %}}{{{{ f({}, n - 1) }}}}{{% else %}}{}{{% endif %}}{{% endmacro %}}{{{{ f([1], 60) }}}}",
            step.replace('@', "a"),
            end.replace('@', "a")
        )
    };
    let mut templates = Vec::new();
    let ends = [
        "{{ @ | length }}",
        "{{ @ }}",
        "{{ @ | tojson }}",
        "{{ @ == @ }}",
        "{{ @ ~ '' }}",
        "{{ '%s' % @ }}",
        "{{ '{}'.format(@) }}",
        "{{ @ | string }}",
        "{{ @ | upper }}",
        "{{ raise_exception(@) }}",
        "{{ @ | join }}",
        "{{ @ | last }}",
        "{{ 2 in @ }}",
        "{{ @[1:] | length }}",
        "{{ @ | sort | length }}",
        "{% set n = namespace(a=@) %}{{ n }}",
    ];
    // Each end of a template with a share of what comes before it.
    for (index, end) in ends.into_iter().enumerate() {
        let mut forms = Vec::new();
        for step in [
            "[@, @]",
            "@ + @",
            "{'x': @, 'y': @}",
            "(@, @)",
            "@, @",
            "(@ * 2) | batch(2) | list",
            "dict(x=@, y=@)",
            "[u, u] | map('default', @) | list",
            "@ | zip(@) | list",
            "@ | chain(@)",
        ] {
            forms.push(unrolled("[1]", step, end));
        }
        forms.push(nested("{% for # in [[@, @]] %}", "{% endfor %}", end));
        forms.push(nested("{%- for\t#\nin[[@, @]] %}", "{% endfor %}", end));
        forms.push(nested("{% with # = [@, @] %}", "{% endwith %}", end));
        forms.push(nested("{% with # = @ + @ %}", "{% endwith %}", end));
        forms.push(macros("[@, @]", end));
        forms.push(macros("@ + @", end));
        forms.push(macros("{'x': @, 'y': @}", end));
        let is_chosen = |(form, _): &(usize, String)| (form + index) % 8 == 0;
        templates.extend(forms.into_iter().enumerate().filter(is_chosen).map(|(_, form)| form));
    }
    for template in templates {
        let message = said(&template).expect_err(&template).to_string();
        let is_limit =
            ["ran out of fuel", "too large", "recursion limit", "tried to use + operator", "levels"];
        assert!(is_limit.iter().any(|limit| message.contains(limit)), "{template}: {message}");
    }
    // To go through a large value costs each time.
    let large = "{% set a = [1] %}{% for i in range(1) %}{% endfor %}";
    let grown: String = (0..16)
        .map(|i| {
            format!(
                "{{% set a{} = [{a}, {a}] %}}",
                i + 1,
                a = if i == 0 { "a".to_owned() } else { format!("a{i}") }
            )
        })
        .collect();
    for step in ["a16 | tojson", "[a16]"] {
        let template =
            format!("{large}{grown}{{% for i in range(100000) %}}{{% set b = {step} %}}{{% endfor %}}");
        let message = said(&template).expect_err(&template).to_string();
        assert!(message.contains("ran out of fuel"), "{step}: {message}");
    }
    let message =
        said(&format!("{{% set a = [1] %}}{}", "{% set a = [a] %}".repeat(20_000))).unwrap_err().to_string();
    assert!(message.contains("expected at most 200 levels of lists and dictionaries"), "{message}");
}

#[test]
fn templates_may_still_build_lists() {
    for (template, expected) in [
        ("{% set a = [messages[0]] + messages[1:] %}{{ a | length }}", "1"),
        ("{% set a, b = 1, [2] %}{{ a }}{{ b }}", "1[2]"),
        ("{% for (k, v) in\t{'a': messages[0].role}.items() %}{{ k }}={{ v }}{% endfor %}", "a=user"),
        ("{{ ({'a': [messages[0].role]}.a + ['x'])[1] }}", "x"),
        (
            "{% if messages[0].role in ['user', 'system'] and messages[0].role in (bos_token, 'user') %}y{% endif %}",
            "y",
        ),
        ("{{ '<' + messages[0].role + '>' + messages[0].content }}", "<user>hello"),
        ("{{ loop_a | default([messages[0].role]) | join }}", "user"),
        ("{{ messages | map(attribute='role') | list }}", "['user']"),
        (
            "{% set n = namespace(a=messages, b=1) %}{% set n.b = n.b + 1 %}{{ n.b }}{{ n.a[0].role }}",
            "2user",
        ),
        ("{{ dict(a=messages[0].role).a }}{{ [3, 1] | batch(1) | list }}", "user[[3], [1]]"),
    ] {
        assert_eq!(said(template).unwrap(), expected, "{template}");
    }
}

/// Whatever a template does, it looks at the clock. A limit of nothing is over at the first look.
#[test]
fn a_template_that_takes_too_long_ends_with_an_error() {
    for template in [
        "{% for i in range(9) %}{% endfor %}",
        "{%- for i in [1] -%} x {%- endfor -%}",
        "{% macro m() %}{% endmacro %}{% set a = m() %}",
        "{{ 'x' }}",
        "{% set a = [messages] %}",
        "{% set a = messages[0].role.upper() %}",
        "{% if 'x' == messages %}{% endif %}",
    ] {
        let tokenizer = with_template(template).with_template_time_limit(Duration::ZERO);
        let template_of = tokenizer.chat_template().unwrap();
        let messages = [ChatMessage::new("user", "hello")];
        let chat = Chat::new(&messages, GenerationPrompt::Add);
        let message = template_of.render(&chat).expect_err(template).to_string();
        assert!(message.contains("expected an end within 0 s"), "{template}: {message}");
        // Another rendering on this thread has its own time.
        assert!(with_template(template).chat_template().unwrap().render(&chat).is_ok(), "{template}");
    }
}

/// The look at the clock does not show in the text.
#[test]
fn a_loop_keeps_the_white_space_of_its_tags() {
    for (template, expected) in [
        ("{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}", "  1\n  2\n"),
        ("{% for i in [1, 2] -%}\n  {{ i }}\n{%- endfor %}", "12"),
        ("{% for i in [1, 2] +%}\n{{ i }}{% endfor %}", "\n1\n2"),
        ("{% for i in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% macro m(a) %}\n<{{ a }}>{% endmacro %}{{ m(1) }}", "<1>"),
        ("{{ 2 * 3 == 6 }}{{ (2 * 3) + 1 }}{{ range(2 * 2) | list }}", "True7[0, 1, 2, 3]"),
        ("{{ 'ab' * 2 }}{{ ([0] * 3) | length }}{% set a = [0] * messages | length %}{{ a }}", "abab3[0]"),
        ("{{ 1 < 2 }}{{ 'a' in messages[0].content }}{{ 'e' in messages[0].content }}", "TrueFalseTrue"),
        ("{{ messages[0].role == messages[0].content and x is not defined }}", "False"),
    ] {
        assert_eq!(said(template).unwrap(), expected, "{template}");
    }
}

/// Pieces of templates, most of which fit together somewhere, and rubbish between them.
fn template() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{%- ",
        " -%}",
        "{# ",
        " #}",
        "{% set n = namespace(a=[]) %}",
        "{% set n.a = ",
        "n",
        "n.a",
        "[n.a]",
        "{'b': n.a}",
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if ",
        "{% elif ",
        "{% else %}",
        "{% endif %}",
        "{% macro f(x) %}",
        "{% endmacro %}",
        "f(",
        "f(f(1))",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "|",
        " | tojson",
        " | tojson(indent=9)",
        " | list",
        " | sort",
        " | join('x')",
        " | length",
        "m.content",
        "messages",
        "loop",
        "loop.index",
        " + ",
        " ~ ",
        " * ",
        "999999999",
        "1",
        "0",
        "-1",
        "not ",
        " in ",
        " is defined",
        ".",
        ",",
        "=",
        "==",
        "'",
        "\"",
        "x",
        " ",
        "\n",
        "range(99999)",
        "raise_exception('no')",
        "{% raw %}",
        "{% endraw %}",
        "{% generation %}",
        "{% endgeneration %}",
        "strftime_now('%Y')",
        "[::-1]",
        "[1:]",
        ".split('l')",
        ".items()",
        "\u{e9}",
        "{% set n.a %}",
        "{% endset %}",
        "{% filter upper %}",
        "{% endfilter %}",
        "__kept",
        "[1] * 999999",
        "[[1] * 999999] * 999999",
        "(1, 2) * 9999",
        "'x' * 999999",
        " == messages",
        " < 'x' * 9999",
        " | select('==', n.a)",
        "{% if m in n.a %}",
    ]);
    prop::collection::vec(words, 0..60).prop_map(|words| words.concat())
}

proptest! {
    /// Whatever is in a template, it is rendered or an error says why not, and what it renders to has a bound.
    #[test]
    fn any_template_is_rendered_or_refused(template in template()) {
        match said(&template) {
            Ok(text) => prop_assert!(text.len() < 256 << 20),
            Err(error) => prop_assert!(error.to_string().contains("chat template"), "{error}"),
        }
    }
}
