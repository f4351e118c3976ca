use serde_json::json;

use super::*;

fn perform(work: Work, context: &Value, names: &[(&str, &str)]) -> Reply {
    let names = names.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect();
    let task = Task { limit_ms: 200, names, work };
    Languages::default().perform(task, context.to_string().as_bytes())
}

fn evaluate(expressions: &[&str], until_true: bool, context: &Value) -> Result<Vec<Value>, String> {
    let expressions = expressions.iter().map(|&source| source.to_owned()).collect();
    match perform(Work::Evaluate { expressions, until_true }, context, &[("Look up", "n1")]) {
        Reply::Values { values } => Ok(values),
        Reply::Threw { message } => Err(message),
        other => panic!("{other:?}"),
    }
}

fn python(source: &str, context: &Value) -> Result<Value, String> {
    match perform(Work::Code { source: source.to_owned() }, context, &[("Look up", "n1")]) {
        Reply::Output { value } => Ok(value),
        Reply::Threw { message } => Err(message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn jsonata_sees_the_context_by_id_and_by_name() {
    let context = json!({"input": {"n": 2}, "n1": {"body": {"vip": true, "tags": ["a", "b"]}}});
    let values = evaluate(
        &["n1.body.vip", "`Look up`.body.tags[1]", "input.n * 21", "input.missing", "input"],
        false,
        &context,
    );
    assert_eq!(values, Ok(vec![json!(true), json!("b"), json!(42), Value::Null, json!({"n": 2})]));
}

#[test]
fn jsonata_stops_after_the_first_truth_and_never_looks_at_the_rest() {
    let values = evaluate(&["0", "'yes'", "$error('never')"], true, &json!({}));
    assert_eq!(values, Ok(vec![json!(0), json!("yes")]));
}

#[test]
fn a_failing_expression_says_which_it_is() {
    let why = evaluate(&["input.n + 'x'"], false, &json!({"input": {"n": 1}})).unwrap_err();
    assert!(why.starts_with("{{ input.n + 'x' }}: T2002"), "{why}");
    let why = evaluate(&["function($x) { $x }"], false, &json!({})).unwrap_err();
    assert!(why.ends_with("is a function, not a value"), "{why}");
}

#[test]
fn jsonata_is_stopped_by_time_depth_and_length() {
    let endless = "($f := function($n) { $f($n + 1) }; $f(0))";
    assert!(evaluate(&[endless], false, &json!({})).unwrap_err().contains("D1012"));
    let deep = "($f := function($n) { 1 + $f($n + 1) }; $f(0))";
    assert!(evaluate(&[deep], false, &json!({})).unwrap_err().contains("D101"));
    assert!(evaluate(&["$map([1..1000000], $string)"], false, &json!({})).is_err());
}

#[test]
fn python_sees_the_context_and_returns_json() {
    let source = "def run(ctx):\n    n = ctx['input']['n']\n    return {'n': n + 1, \
                  'name': ctx['Look up']['body'], 'list': (1, 2.5, None, True)}";
    let context = json!({"input": {"n": 41}, "n1": {"body": "ü"}});
    let expected = json!({"n": 42, "name": "ü", "list": [1, 2.5, null, true]});
    assert_eq!(python(source, &context), Ok(expected));
}

#[test]
fn an_exception_tells_the_line() {
    let source = "def run(ctx):\n    x = 1\n    raise ValueError('no ' + str(x))";
    assert_eq!(python(source, &json!({})), Err("line 3: ValueError: no 1".to_owned()));
    let key = python("def run(ctx):\n    return ctx['none']", &json!({})).unwrap_err();
    assert!(key.starts_with("line 2: KeyError"), "{key}");
}

#[test]
fn python_is_stopped_by_time_and_depth() {
    let endless = python("def run(ctx):\n    while True:\n        pass", &json!({})).unwrap_err();
    assert!(endless.contains("TimeoutError") || endless.contains("time limit"), "{endless}");
    let caught = "def run(ctx):\n    while True:\n        try:\n            while True:\n                \
                  pass\n        except BaseException:\n            pass";
    assert!(python(caught, &json!({})).is_err(), "the limit cannot be caught");
    let deep = "def run(ctx):\n    return run(ctx)";
    assert!(python(deep, &json!({})).unwrap_err().contains("RecursionError"));
}

#[test]
fn python_has_no_way_out() {
    for source in [
        "def run(ctx):\n    return open('/etc/passwd').read()",
        "import os\ndef run(ctx):\n    return os.environ['HOME']",
        "import os\ndef run(ctx):\n    return os.getenv('HOME')",
        "import socket\ndef run(ctx):\n    return 1",
        "import subprocess\ndef run(ctx):\n    return 1",
        "from pathlib import Path\ndef run(ctx):\n    return Path('/etc/passwd').read_text()",
        "def run(ctx):\n    return __import__('os')",
        "def run(ctx):\n    return eval('1')",
        "def run(ctx):\n    return ().__class__.__bases__[0].__subclasses__()",
        "from datetime import datetime\ndef run(ctx):\n    return datetime.now().isoformat()",
    ] {
        let outcome = python(source, &json!({}));
        assert!(outcome.is_err(), "{source}: {outcome:?}");
    }
}

#[test]
fn what_json_does_not_have_is_refused() {
    for returned in ["{1: 2}", "{1, 2}", "float('nan')", "10 ** 30", "b'x'", "run", "range(3)"] {
        let outcome = python(&format!("def run(ctx):\n    return {returned}"), &json!({}));
        assert!(outcome.clone().is_err_and(|why| why.starts_with("run returned")), "{outcome:?}");
    }
    let mut deep = "1".to_owned();
    for _ in 0..70 {
        deep = format!("[{deep}]");
    }
    let outcome = python(&format!("def run(ctx):\n    return {deep}"), &json!({}));
    assert!(outcome.is_err(), "{outcome:?}");
}

#[test]
fn a_reply_of_too_many_values_is_not_sent() {
    let reply = |count: usize| {
        let values = vec![Value::Null; count];
        serde_json::to_vec(&Reply::Values { values }).unwrap()
    };
    let work = Work::Code { source: String::new() };
    assert_eq!(too_much(&reply(10_000), work.most_values()), None);
    let why = too_much(&reply(10_010), work.most_values());
    assert_eq!(why.as_deref(), Some("gives more than 10000 JSON values"));
    let texts = |count: usize| vec!["1".to_owned(); count];
    let check = Work::Check { expressions: texts(11_000), sources: texts(1) };
    let checked = Reply::Checked { expressions: vec![None; 11_000], sources: vec![None] };
    assert_eq!(too_much(&serde_json::to_vec(&checked).unwrap(), check.most_values()), None);
}

#[test]
fn texts_are_checked_without_being_run() {
    let expressions = ["input.a", "input.(", "$x["].map(str::to_owned).to_vec();
    let sources = [
        "def run(ctx):\n    return 1",
        "def run(ctx)\n    return 1",
        "def other(ctx):\n    return 1",
        "import math, json\nfrom re import match\ndef run(ctx):\n    return 1",
        "import requests\ndef run(ctx):\n    return 1",
        "from os.path import join\ndef run(ctx):\n    return 1",
        "def run(ctx):\n    '''\n    import requests\n    '''\n    return 1",
        "def run(ctx):\n    import socket\n    return 1",
        "while True: pass\ndef run(ctx): return 1",
    ];
    let sources = sources.map(str::to_owned).to_vec();
    let reply = perform(Work::Check { expressions, sources }, &json!({}), &[]);
    let Reply::Checked { expressions, sources } = reply else { panic!("{reply:?}") };
    let bad =
        |faults: &[Option<String>]| -> Vec<bool> { faults.iter().map(Option::is_some).collect() };
    assert_eq!(bad(&expressions), [false, true, true]);
    assert_eq!(bad(&sources), [false, true, true, false, true, true, false, true, false]);
    assert!(sources[1].as_deref().unwrap().starts_with("line 1: SyntaxError"), "{:?}", sources[1]);
    assert!(sources[4].as_deref().unwrap().starts_with("line 1: there is no module requests"));
}

#[test]
fn a_worker_answers_frames_until_its_input_ends() {
    let frames = |work: Work| {
        let task = Task { limit_ms: 200, names: Vec::new(), work };
        let mut line = Vec::new();
        wire::write(&mut line, &serde_json::to_vec(&task).unwrap(), LONGEST_TASK).unwrap();
        wire::write(&mut line, b"{\"a\":1}", LONGEST_TASK).unwrap();
        line
    };
    let mut input = frames(Work::Evaluate { expressions: vec!["a".into()], until_true: false });
    let huge = "def run(ctx):\n    return 'x' * 2000000".to_owned();
    input.extend(frames(Work::Code { source: huge }));
    let mut output = Vec::new();
    serve(&mut input.as_slice(), &mut output, |_| ()).unwrap();
    let (mut from, mut frame) = (output.as_slice(), Vec::new());
    assert!(wire::read(&mut from, &mut frame, LONGEST_REPLY).unwrap());
    assert_eq!(
        serde_json::from_slice::<Reply>(&frame).unwrap(),
        Reply::Values { values: vec![json!(1)] }
    );
    assert!(wire::read(&mut from, &mut frame, LONGEST_REPLY).unwrap());
    let reply = serde_json::from_slice::<Reply>(&frame).unwrap();
    assert!(
        matches!(&reply, Reply::Threw { message } if message.starts_with("gives more than")),
        "{reply:?}"
    );
}
