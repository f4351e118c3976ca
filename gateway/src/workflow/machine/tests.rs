use std::fmt::Write as _;

use serde_json::json;

use super::*;

fn definition(steps: Value) -> Arc<Definition> {
    Definition::parse(&json!({ "steps": steps })).unwrap().definition
}

/// A run with a minute of time, and the moment it begins.
fn run(definition: &Arc<Definition>, input: Value) -> (Run, Instant) {
    let now = crate::clock::now();
    let deadline = now + Duration::from_secs(60);
    (Run::new(Arc::clone(definition), definition.first(), input, (now, deadline)), now)
}

/// Every type of step once.
fn every_type() -> Arc<Definition> {
    definition(json!([
        {"id": "trigger", "type": "input", "next": "n0",
            "fields": [{"name": "caller_number", "type": "string", "required": true}]},
        {"id": "n0", "type": "note", "text": "why", "next": "n1"},
        {"id": "n1", "name": "Who calls", "type": "condition", "default": "n5", "branches": [
            {"label": "never", "when": false, "next": "n5"},
            {"label": "vip", "when": "{{ input.vip }}", "next": "n2"}]},
        {"id": "n2", "name": "Look up", "type": "http", "method": "POST", "next": "n3",
            "url": "https://crm.example/{{ input.caller_number }}",
            "headers": {"X-Key": "k"}, "body": {"who": "{{ input.caller_number }}"}},
        {"id": "n3", "type": "code", "code": "def run(ctx): return 1", "next": "n4"},
        {"id": "n4", "type": "wait", "duration": "{{ n3 }}", "next": "n5"},
        {"id": "n5", "type": "app", "action": "split", "next": "n6",
            "parameters": {"key": "a", "choices": [{"value": "only"}]}},
        {"id": "n6", "type": "output", "fields": {
            "agent_id": "{{ n5.value }}", "initial_context": "${ Greet {{ input.caller_number }} }"}},
    ]))
}

/// What the run asked for, line by line, when each want is met by the next input.
fn played(definition: &Arc<Definition>, input: Value, inputs: Vec<Input>) -> (String, Run) {
    let (mut run, now) = run(definition, input);
    let mut said = String::new();
    let mut at = now;
    for input in std::iter::once(Input::Begin).chain(inputs) {
        let want = match run.handle(at, input) {
            Want::Sleep(until) => format!("Sleep({:?})", until - at),
            want => format!("{want:?}"),
        };
        writeln!(said, "{want}").unwrap();
        at += Duration::from_millis(1);
    }
    (said, run)
}

fn happy_inputs() -> Vec<Input> {
    vec![
        Input::Values(vec![json!(true)]),
        Input::Values(vec![json!("+15550001"), json!("+15550001")]),
        Input::Output(json!({"status_code": 200, "headers": {}, "body": null})),
        Input::Output(json!(1)),
        Input::Values(vec![json!(2.5)]),
        Input::Woke,
        Input::Values(vec![json!("only"), json!("+15550001")]),
        Input::Answer("Hello!".to_owned()),
    ]
}

#[test]
fn every_type_of_step_wants_what_it_should_in_order() {
    let (said, run) = played(&every_type(), json!({"caller_number": "+15550001"}), happy_inputs());
    let expected = r#"Evaluate { expressions: ["input.vip"], until_true: true }
Evaluate { expressions: ["input.caller_number", "input.caller_number"], until_true: false }
Http(HttpRequest { method: "POST", url: "https://crm.example/+15550001", headers: [("X-Key", "k")], body: Some(([123, 34, 119, 104, 111, 34, 58, 34, 43, 49, 53, 53, 53, 48, 48, 48, 49, 34, 125], "application/json")), timeout: 10s })
Code("def run(ctx): return 1")
Evaluate { expressions: ["n3"], until_true: false }
Sleep(2.5s)
Evaluate { expressions: ["n5.value", "input.caller_number"], until_true: false }
Ask(" Greet +15550001 ")
End(Ok(Object {"agent_id": String("only"), "initial_context": String("Hello!")}))
"#;
    assert_eq!(said, expected);
    let steps: Vec<_> = run.progress.trace.iter().map(|entry| entry.step.as_str()).collect();
    assert_eq!(steps, ["trigger", "n0", "n1", "n2", "n3", "n4", "n5", "n6"]);
    assert_eq!(run.progress.trace[2].summary, "branch vip");
    assert_eq!(run.context()["n4"], json!({"waited_seconds": 2.5}));
    assert_eq!(run.names(), [("Who calls", "n1"), ("Look up", "n2")]);
}

#[test]
fn the_same_inputs_give_the_same_wants() {
    let play = || played(&every_type(), json!({"caller_number": "+15550001"}), happy_inputs()).0;
    assert_eq!(play(), play());
}

#[test]
fn a_failure_names_the_step_and_stays_in_the_trace() {
    let (mut run, now) = run(&every_type(), json!({"caller_number": "+1"}));
    run.handle(now, Input::Begin);
    run.handle(now, Input::Values(vec![json!(true)]));
    let later = now + Duration::from_micros(70);
    let Want::End(Err(failure)) = run.handle(later, Input::Threw("boom".to_owned())) else {
        panic!("a failed step ends the run");
    };
    assert_eq!((&*failure.step_name, &*failure.message), ("Look up", "boom"));
    assert_eq!(failure.kind, FailureKind::Threw);
    let last = run.progress.trace.last().unwrap();
    assert_eq!((&*last.step, &*last.summary, last.duration_us), ("n2", "threw: boom", 70));
}

#[test]
fn time_that_is_up_ends_a_run_in_any_state() {
    for before in 0..happy_inputs().len() {
        let (mut run, now) = run(&every_type(), json!({"caller_number": "+1"}));
        run.handle(now, Input::Begin);
        for input in happy_inputs().into_iter().take(before) {
            run.handle(now, input);
        }
        let ended = run.handle(now, Input::Expired);
        let Want::End(Err(failure)) = ended else { panic!("{ended:?}") };
        assert_eq!(failure.kind, FailureKind::TimedOut);
    }
}

#[test]
fn the_input_is_checked_before_anything_else() {
    let failure = |input: Value| {
        let (mut run, now) = run(&every_type(), input);
        match run.handle(now, Input::Begin) {
            Want::End(Err(failure)) => failure.message,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failure(json!([])), "the input must be an object");
    assert_eq!(failure(json!({})), "the input has no caller_number");
    let why = "the input's caller_number is not of the type string";
    assert_eq!(failure(json!({"caller_number": 7})), why);
}

#[test]
fn branches_are_tried_in_order_and_plain_truths_count() {
    let steps = |second: Value| {
        definition(json!([
            {"id": "c", "type": "condition", "default": "d", "branches": [
                {"label": "a", "when": "{{ a }}", "next": "a"},
                {"label": "b", "when": second, "next": "b"},
                {"label": "late", "when": "{{ late }}", "next": "a"}]},
            {"id": "a", "type": "output", "fields": {"taken": "a"}},
            {"id": "b", "type": "output", "fields": {"taken": "b"}},
            {"id": "d", "type": "output", "fields": {"taken": "d"}},
        ]))
    };
    let taken = |definition: &Arc<Definition>, values: Vec<Value>| {
        let (mut run, now) = run(definition, json!({}));
        let Want::Evaluate { expressions, .. } = run.handle(now, Input::Begin) else {
            panic!("branches have expressions");
        };
        match run.handle(now, Input::Values(values)) {
            Want::End(Ok(output)) => (expressions.len(), output["taken"].clone()),
            other => panic!("{other:?}"),
        }
    };
    let plain = steps(json!(true));
    assert_eq!(taken(&plain, vec![json!("yes")]), (1, json!("a")));
    assert_eq!(taken(&plain, vec![json!(0)]), (1, json!("b")));
    let asked = steps(json!("{{ b }}"));
    assert_eq!(taken(&asked, vec![json!(null), json!(""), json!([])]), (3, json!("d")));
    assert_eq!(taken(&asked, vec![json!(null), json!({"x": 1})]), (3, json!("b")));
}

#[test]
fn a_circle_ends_when_its_steps_are_spent() {
    let circle = definition(json!([
        {"id": "a", "type": "condition", "default": "out",
            "branches": [{"label": "again", "when": true, "next": "b"}]},
        {"id": "b", "type": "note", "next": "a"},
        {"id": "out", "type": "output"},
    ]));
    let (mut run, now) = run(&circle, json!({}));
    let Want::End(Err(failure)) = run.handle(now, Input::Begin) else { panic!("it never ends") };
    assert_eq!(failure.kind, FailureKind::TooManySteps);
    assert_eq!(run.progress.trace.len() as u64, WORKFLOW_RUN_STEPS.value + 1);
}

#[test]
fn a_wait_beyond_the_deadline_fails_at_once() {
    let waits = definition(json!([
        {"id": "w", "type": "wait", "duration": 2, "unit": "Minutes", "next": "out"},
        {"id": "out", "type": "output"},
    ]));
    let (mut run, now) = run(&waits, json!({}));
    let Want::End(Err(failure)) = run.handle(now, Input::Begin) else { panic!("it waits") };
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert_eq!(failure.message, "a wait of 120 s is longer than the run may take");
}

#[test]
fn a_run_that_was_put_aside_goes_on_where_it_was() {
    let inputs = || happy_inputs().into_iter().take(5).collect::<Vec<_>>();
    let (_, waiting) = played(&every_type(), json!({"caller_number": "+15550001"}), inputs());
    let stored = serde_json::to_value(waiting.pause().unwrap()).unwrap();
    let paused: Paused = serde_json::from_value(stored).unwrap();
    let now = crate::clock::now();
    let mut run = Run::resume(every_type(), paused, (now, now + Duration::from_secs(1)));
    assert!(matches!(run.handle(now, Input::Woke), Want::Evaluate { .. }));
    assert_eq!(run.context()["n4"], json!({"waited_seconds": 2.5}));
    assert!(run.pause().is_none(), "only a wait can be put aside");
}

#[test]
fn what_a_run_remembers_is_bounded() {
    let circle = definition(json!([
        {"id": "a", "type": "code", "code": "def run(ctx): ...", "next": "b"},
        {"id": "b", "type": "code", "code": "def run(ctx): ...", "next": "c"},
        {"id": "c", "type": "code", "code": "def run(ctx): ...", "next": "d"},
        {"id": "d", "type": "code", "code": "def run(ctx): ...", "next": "a2"},
        {"id": "a2", "type": "code", "code": "def run(ctx): ...", "next": "out"},
        {"id": "out", "type": "output"},
    ]));
    let (mut run, now) = run(&circle, json!({}));
    let most = WORKFLOW_OUTPUT_BYTES.value_usize();
    run.handle(now, Input::Begin);
    for _ in 0..3 {
        let want = run.handle(now, Input::Output(json!("x".repeat(most - 2))));
        assert!(matches!(want, Want::Code(_)), "{want:?}");
    }
    let Want::End(Err(failure)) = run.handle(now, Input::Output(json!("x".repeat(most - 2))))
    else {
        panic!("four full outputs and their keys are more than the context holds");
    };
    assert!(failure.message.starts_with("the run remembers more"), "{}", failure.message);
    let (mut run, now) = self::run(&circle, json!({}));
    run.handle(now, Input::Begin);
    let Want::End(Err(failure)) = run.handle(now, Input::Output(json!("x".repeat(most)))) else {
        panic!("one output is bounded too");
    };
    assert!(failure.message.starts_with("what the step gives is more"), "{}", failure.message);
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let (mut run, now) = self::run(&circle, json!({}));
    run.handle(now, Input::Begin);
    let Want::End(Err(failure)) = run.handle(now, Input::Output(deep)) else { panic!("too deep") };
    assert!(failure.message.contains("nested"), "{}", failure.message);
}

#[test]
fn how_many_values_a_run_remembers_is_bounded_too() {
    let circle = definition(json!([
        {"id": "a", "type": "code", "code": "def run(ctx): ...", "next": "b"},
        {"id": "b", "type": "code", "code": "def run(ctx): ...", "next": "b2"},
        {"id": "b2", "type": "code", "code": "def run(ctx): ...", "next": "never"},
        {"id": "never", "type": "condition", "default": "a", "branches": [
            {"label": "out", "when": false, "next": "out"}]},
        {"id": "out", "type": "output"},
    ]));
    let zeros = |count: u64| Value::Array((1..count).map(|_| json!(0)).collect());
    let most = WORKFLOW_OUTPUT_VALUES.value;
    let ended = |outputs: &[u64]| {
        let (mut run, now) = run(&circle, json!({}));
        run.handle(now, Input::Begin);
        let mut wants = outputs.iter().map(|count| run.handle(now, Input::Output(zeros(*count))));
        match wants.find(|want| !matches!(want, Want::Code(_))) {
            Some(Want::End(Err(failure))) => Some(failure.message),
            other => panic!("the steps go round in a circle, or fail: {other:?}"),
        }
    };
    let one = ended(&[most + 1]).unwrap();
    assert_eq!(one, "what the step gives is made of more than 10000 JSON values");
    let all = ended(&[most, most]).unwrap();
    assert_eq!(all, "the run remembers more than 20000 JSON values");
    // What a step gives anew takes the place of what it gave before.
    let small: Vec<u64> = [most, 1, 1].repeat(10).into_iter().chain([most + 1]).collect();
    assert!(ended(&small).unwrap().starts_with("what the step gives"));
}

#[test]
fn a_typed_output_is_held_to_its_types() {
    let typed = definition(json!([
        {"id": "out", "type": "output", "fields": [
            {"name": "version", "type": "number", "value": "{{ v }}"},
            {"name": "note", "value": "plain"}]},
    ]));
    let output = |value: Value| {
        let (mut run, now) = run(&typed, json!({}));
        run.handle(now, Input::Begin);
        run.handle(now, Input::Values(vec![value]))
    };
    assert_eq!(output(json!(3)), Want::End(Ok(json!({"version": 3, "note": "plain"}))));
    assert_eq!(output(json!(null)), Want::End(Ok(json!({"version": null, "note": "plain"}))));
    let Want::End(Err(failure)) = output(json!("3")) else { panic!("a string is no number") };
    assert_eq!(failure.message, "the field version is not of the type number");
}
