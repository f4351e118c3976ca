//! What a name on the command line stands for: an id, or the one thing that is called so.

use config::ids::WorkflowId;
use serde_json::Value;
use uuid::Uuid;

use super::failure::Failure;
use super::rest::{Query, Rest};
use super::shown::field;

/// The id of the trunk that is named by id or name.
pub(crate) async fn trunk(rest: &Rest, named: &str) -> Result<String, Failure> {
    id(rest, &["core", "trunks"], "trunk", named).await
}

/// The id of the agent that is named by id or name.
pub(crate) async fn agent(rest: &Rest, named: &str) -> Result<String, Failure> {
    id(rest, &["core", "agents"], "agent", named).await
}

/// The id of the workflow that is named by id or name.
pub(crate) async fn workflow(rest: &Rest, named: &str) -> Result<String, Failure> {
    if named.parse::<WorkflowId>().is_ok() {
        return Ok(named.to_owned());
    }
    id(rest, &["workflow", "workflows"], "workflow", named).await
}

async fn id(rest: &Rest, path: &[&str], noun: &str, named: &str) -> Result<String, Failure> {
    if Uuid::parse_str(named).is_ok() {
        return Ok(named.to_owned());
    }
    // The API's filter finds parts of names, in any case; only the very name counts here.
    let query = Query::from([("name", named.to_owned())]);
    let found = rest.all(path, &query).await?;
    only(&found, noun, named)
}

fn only(found: &[Value], noun: &str, named: &str) -> Result<String, Failure> {
    let mut ids =
        found.iter().filter(|item| field(item, "name") == named).map(|item| field(item, "id"));
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Failure::not_found(noun, named)),
        (Some(one), Some(other)) => {
            let mut all = vec![one, other];
            all.extend(ids);
            let list = all.join("\n  ");
            Err(Failure::Unusable(format!(
                "{} {noun}s are called {named}; say which by its id:\n  {list}",
                all.len()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_very_name_counts_and_two_of_them_are_an_error() {
        let found = [
            json!({"id": "1", "name": "Echo"}),
            json!({"id": "2", "name": "echo"}),
            json!({"id": "3", "name": "Echo 2"}),
            json!({"id": "4", "name": "echo"}),
        ];
        assert_eq!(only(&found, "agent", "Echo").unwrap(), "1");
        assert!(matches!(only(&found, "agent", "Ech"), Err(Failure::Refused(_))));
        let Err(Failure::Unusable(why)) = only(&found, "agent", "echo") else {
            panic!("two agents of one name were taken for one");
        };
        assert!(why.contains("\n  2\n  4"), "{why}");
    }
}
