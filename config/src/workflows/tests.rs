use serde_json::json;

use super::*;

/// The places of all faults of a definition with these steps.
fn places(definition: &Value) -> Vec<String> {
    match Definition::parse(definition) {
        Ok(parsed) => panic!("{parsed:?}"),
        Err(faults) => faults.into_iter().map(|fault| fault.place).collect(),
    }
}

fn good(definition: &Value) -> Parsed {
    Definition::parse(definition).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn with_output(step: Value) -> Value {
    json!({"steps": [step, {"id": "out", "type": "output", "fields": {}}]})
}

#[test]
fn a_definition_of_every_type_is_read() {
    let definition = json!({
        "schema": "trunkline/1", "name": "All", "timeout_seconds": 60,
        "steps": [
            {"id": "trigger", "type": "input", "next": "n1", "position": {"x": 1, "y": 2},
                "fields": [{"name": "caller_number", "type": "string", "required": true}]},
            {"id": "n1", "name": "Who calls", "type": "condition", "branches": [
                {"label": "vip", "when": "{{ input.vip }}", "next": "n2"},
                {"label": "never", "when": false}]},
            {"id": "n2", "type": "code", "language": "python", "code": "def run(ctx): return 1"},
            {"id": "n3", "type": "http", "method": "post", "url": "https://a.example",
                "headers": {"X-A": "{{ n2 }}"}, "query": {}, "body": [1], "timeout_seconds": 3,
                "next": "n4"},
            {"id": "n4", "type": "app", "action": "any", "parameters": {"a": 1}, "next": "n5"},
            {"id": "n5", "type": "wait", "duration": "{{ n2 }}", "unit": "Minutes", "next": "n6"},
            {"id": "n6", "type": "output", "fields": [
                {"name": "version", "type": "number", "value": 3}, {"name": "any", "value": null}]},
            {"id": "memo", "type": "note", "text": "for people"},
        ],
        "edges": [
            {"from": "n1", "to": "n6"},
            {"from": "n1", "to": "n6", "branch": "never"},
            {"from": "n2", "to": "n3"},
            {"from": "n3", "to": "n4", "id": "e1"},
        ],
    });
    let Parsed { definition, warnings } = good(&definition);
    assert_eq!(warnings, []);
    assert_eq!(definition.first_step(), "trigger");
    assert_eq!(definition.time_limit(), Some(Duration::from_secs(60)));
    let words: Vec<_> = definition.steps().iter().map(|step| step.kind.as_str()).collect();
    assert_eq!(words, ["input", "condition", "code", "http", "app", "wait", "output", "note"]);
    let Kind::Condition { branches, default } = &definition.steps()[1].kind else { panic!() };
    let ahead: Vec<_> = branches.iter().map(|branch| branch.next).collect();
    assert_eq!((ahead, *default), (vec![Some(2), Some(6)], Some(6)));
    assert_eq!(definition.steps()[2].next, Some(3), "an edge is as good as next");
}

#[test]
fn a_run_begins_at_the_trigger_or_the_input_or_the_first_step() {
    let out = json!({"id": "out", "type": "output"});
    let first = |steps: Value| good(&json!({ "steps": steps })).definition.first_step().to_owned();
    let input = json!({"id": "a", "type": "input", "next": "out"});
    assert_eq!(first(json!([out, input])), "a");
    let trigger = json!({"id": "trigger", "type": "note", "next": "a"});
    assert_eq!(first(json!([out, input, trigger])), "trigger");
    assert_eq!(first(json!([out])), "out");
}

#[test]
fn faults_are_told_at_their_place() {
    for (step, place) in [
        (json!({"type": "note"}), "steps[0].id"),
        (json!({"id": "a b", "type": "note"}), "steps[0].id"),
        (json!({"id": "input", "type": "note"}), "steps[0].id"),
        (json!({"id": "out", "type": "note"}), "steps[1].id"),
        (json!({"id": "a", "name": "out", "type": "note"}), "steps[1].id"),
        (json!({"id": "a", "name": "`", "type": "note"}), "steps[0].name"),
        (json!({"id": "a"}), "steps[0].type"),
        (json!({"id": "a", "type": "loop"}), "steps[0].type"),
        (json!({"id": "a", "type": "note", "next": "b"}), "steps[0].next"),
        (json!({"id": "a", "type": "note", "nest": "out"}), "steps[0].nest"),
        (json!({"id": "a", "type": "code", "code": 1}), "steps[0].code"),
        (json!({"id": "a", "type": "code", "code": "", "language": "js"}), "steps[0].language"),
        (json!({"id": "a", "type": "http", "url": "ftp://a"}), "steps[0].url"),
        (
            json!({"id": "a", "type": "http", "url": "https://a", "method": "TRACE"}),
            "steps[0].method",
        ),
        (json!({"id": "a", "type": "http", "url": "https://a", "body": 1}), "steps[0].body"),
        (
            json!({"id": "a", "type": "http", "url": "https://a", "headers": {"Host": "b"}}),
            "steps[0].headers.Host",
        ),
        (
            json!({"id": "a", "type": "http", "url": "https://a", "headers": {"a b": "b"}}),
            "steps[0].headers.a b",
        ),
        (
            json!({"id": "a", "type": "http", "url": "https://a", "timeout_seconds": 61}),
            "steps[0].timeout_seconds",
        ),
        (json!({"id": "a", "type": "http", "url": "https://{{ a"}), "steps[0].url"),
        (json!({"id": "a", "type": "wait", "duration": -1}), "steps[0].duration"),
        (json!({"id": "a", "type": "wait", "unit": "weeks"}), "steps[0].unit"),
        (json!({"id": "a", "type": "app"}), "steps[0].action"),
        (
            json!({"id": "a", "type": "input", "fields": [{"name": "n", "type": "int"}]}),
            "steps[0].fields[0].type",
        ),
        (json!({"id": "a", "type": "output", "next": "out"}), "steps[0].next"),
        (
            json!({"id": "a", "type": "output", "fields": {"x": {"y": ["${"]}}}),
            "steps[0].fields.x.y[0]",
        ),
        (
            json!({"id": "a", "type": "output", "fields": [{"name": "n", "type": "number", "value": "3"}]}),
            "steps[0].fields[0].value",
        ),
        (json!({"id": "a", "type": "condition"}), "steps[0].branches"),
    ] {
        let found = places(&with_output(step.clone()));
        assert!(found.iter().any(|one| one == place), "{step}: {found:?}");
    }
}

#[test]
fn a_branch_asks_one_question() {
    for when in
        [json!("{{ a }} or {{ b }}"), json!("a"), json!("${ is it? }"), json!(1), json!(null)]
    {
        let branch = json!({"label": "x", "when": when, "next": "out"});
        let step = json!({"id": "a", "type": "condition", "branches": [branch], "default": "out"});
        assert_eq!(places(&with_output(step)), ["steps[0].branches[0].when"], "{when}");
    }
    let twice = json!([{"label": "x", "when": true}, {"label": "x", "when": true}]);
    let step = json!({"id": "a", "type": "condition", "branches": twice, "default": "out"});
    assert_eq!(places(&with_output(step)), ["steps[0].branches[1].label"]);
}

#[test]
fn edges_that_lead_nowhere_or_contradict_are_faults() {
    let with = |edge: Value| {
        let mut definition = json!({"steps": [
            {"id": "c", "type": "condition", "default": "a",
                "branches": [{"label": "yes", "when": true, "next": "a"}]},
            {"id": "a", "type": "note", "next": "out"},
            {"id": "out", "type": "output"},
        ]});
        definition["edges"] = json!([edge]);
        definition
    };
    for (edge, place) in [
        (json!({"from": "x", "to": "a"}), "edges[0].from"),
        (json!({"from": "a"}), "edges[0].to"),
        (json!({"from": "a", "to": "c"}), "edges[0].to"),
        (json!({"from": "c", "to": "out"}), "edges[0].to"),
        (json!({"from": "c", "to": "out", "branch": "yes"}), "edges[0].to"),
        (json!({"from": "c", "to": "out", "branch": "no"}), "edges[0].branch"),
        (json!({"from": "a", "to": "out", "branch": "yes"}), "edges[0].branch"),
        (json!({"from": "out", "to": "a"}), "edges[0].from"),
        (json!({"from": "a", "to": "out", "label": "x"}), "edges[0].label"),
    ] {
        assert_eq!(places(&with(edge.clone())), [place], "{edge}");
    }
    good(&with(json!({"from": "a", "to": "out"})));
    good(&with(json!({"from": "c", "to": "a", "branch": "default"})));
}

#[test]
fn an_output_must_be_reached_and_lost_steps_are_told() {
    let lost = json!({"steps": [{"id": "a", "type": "note"}, {"id": "out", "type": "output"}]});
    assert_eq!(places(&lost), ["steps"]);
    let odd = json!({"steps": [
        {"id": "out", "type": "output"}, {"id": "a", "type": "wait", "next": "out"},
        {"id": "memo", "type": "note"}]});
    let Parsed { warnings, .. } = good(&odd);
    let warned: Vec<_> = warnings.iter().map(|fault| fault.place.as_str()).collect();
    assert_eq!(warned, ["steps[1]"], "notes are for people and need not be reached");
    let circle = json!({"steps": [
        {"id": "a", "type": "condition", "default": "a",
            "branches": [{"label": "x", "when": "{{ x }}", "next": "out"}]},
        {"id": "out", "type": "output"}]});
    assert_eq!(good(&circle).warnings, [], "circles are bounded when they run");
}

#[test]
fn what_is_no_definition_says_so() {
    assert_eq!(places(&json!([])), [""]);
    assert_eq!(places(&json!({})), ["steps"]);
    assert_eq!(places(&json!({"steps": []})), ["steps"]);
    assert_eq!(places(&json!({"steps": {}})), ["steps"]);
    assert_eq!(places(&json!({"steps": [1]})), ["steps[0]"]);
    let mut other = with_output(json!({"id": "a", "type": "note", "next": "out"}));
    for bad in ["own/2", "own", "/1", "own/1/1", "a b/1", &format!("{}/1", "x".repeat(65))] {
        other["schema"] = json!(bad);
        assert_eq!(places(&other), ["schema"], "{bad}");
    }
    for name in ["trunkline/1", "own/1", "Our-format.v2/1"] {
        other["schema"] = json!(name);
        good(&other);
    }
    other["layout"] = json!({});
    assert_eq!(places(&other), ["layout"]);
}

#[test]
fn sizes_are_bounded() {
    let steps: Vec<_> =
        (0..201).map(|n| json!({"id": format!("s{n}"), "type": "output"})).collect();
    assert_eq!(places(&json!({ "steps": steps })), ["steps"]);
    let code = format!("def run(ctx): return '{}'", "x".repeat(65_536));
    assert_eq!(
        places(&with_output(json!({"id": "a", "type": "code", "code": code}))),
        ["steps[0].code"]
    );
    let long = format!("{{{{ '{}' }}}}", "x".repeat(8_192));
    let step = json!({"id": "a", "type": "output", "fields": {"x": long}});
    assert_eq!(places(&with_output(step)), ["steps[0].fields.x"]);
    let huge = json!({"steps": [{"id": "out", "type": "note", "text": "x".repeat(262_144)}]});
    assert_eq!(places(&huge), [""]);
}
