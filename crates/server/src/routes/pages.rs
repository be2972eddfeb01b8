//! Paged lists, as in the API: at most `limit` entries `after` an id.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageQuery {
    limit: Option<String>,
    after: Option<String>,
    order: Option<String>,
    /// Of files only.
    pub purpose: Option<String>,
}

const MAX_LIMIT: usize = 10_000;

impl PageQuery {
    /// The page of `entries`, which are given oldest first and come newest first unless the query wants otherwise.
    ///
    /// # Errors
    /// 400 for an invalid limit or order, or an `after` that is not among the entries.
    pub fn page<T>(
        &self,
        mut entries: Vec<T>,
        id: impl Fn(&T) -> &str,
        body: impl Fn(&T) -> Value,
    ) -> Result<Value, Refusal> {
        let newest_first = match self.order.as_deref() {
            Some("asc") => false,
            None | Some("desc") => true,
            Some(found) => {
                return Err(Refusal::field("order", format!("expected asc or desc, found {found:?}")));
            }
        };
        let limit = match &self.limit {
            None => MAX_LIMIT,
            Some(found) => match found.parse() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => limit,
                _ => {
                    return Err(Refusal::field(
                        "limit",
                        format!("expected 1 to {MAX_LIMIT}, found {found:?}"),
                    ));
                }
            },
        };
        if newest_first {
            entries.reverse();
        }
        let first = match &self.after {
            None => 0,
            Some(after) => match entries.iter().position(|entry| id(entry) == after) {
                Some(index) => index + 1,
                None => {
                    return Err(Refusal::field(
                        "after",
                        format!("expected an id of this list, found {after:?}"),
                    ));
                }
            },
        };
        let rest = &entries[first..];
        let page = &rest[..limit.min(rest.len())];
        Ok(json!({
            "object": "list",
            "data": page.iter().map(body).collect::<Vec<_>>(),
            "first_id": page.first().map(&id),
            "last_id": page.last().map(&id),
            "has_more": page.len() < rest.len(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole_list() {
        let check = |query: PageQuery, expect: &[&str], has_more: bool| {
            let entries = vec!["a", "b", "c"];
            let page = query.page(entries, |id| id, |id| json!(id)).unwrap();
            assert_eq!((&page["data"], &page["has_more"]), (&json!(expect), &json!(has_more)), "{query:?}");
        };
        let query = |limit: Option<i64>, after: Option<&str>, order: Option<&str>| PageQuery {
            limit: limit.map(|limit| limit.to_string()),
            after: after.map(str::to_owned),
            order: order.map(str::to_owned),
            purpose: None,
        };
        check(query(None, None, None), &["c", "b", "a"], false);
        check(query(Some(2), None, None), &["c", "b"], true);
        check(query(Some(2), Some("b"), None), &["a"], false);
        check(query(Some(1), Some("a"), Some("asc")), &["b"], true);
        check(query(None, Some("a"), None), &[], false);
        for wrong in [query(Some(0), None, None), query(None, Some("x"), None), query(None, None, Some("up"))]
        {
            assert!(wrong.page(vec!["a"], |id| id, |id| json!(id)).is_err(), "{wrong:?}");
        }
    }
}
