//! Lists come in pages. The cursor that leads to the next one is opaque: a client hands back what it was given.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;

/// Some of a list's items, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Leads to the next page, as `?cursor=`; absent on the last one.
    pub next: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// At most this many items; 100 where it is left out, 1000 at most.
    pub limit: Option<u32>,
}

/// As many as a page has at most.
const MOST: u32 = 1000;
/// As many as a page has where the client does not say.
const USUAL: u32 = 100;

impl PageQuery {
    /// How many items are wanted.
    pub(super) fn limit(&self) -> u32 {
        self.limit.unwrap_or(USUAL).clamp(1, MOST)
    }

    /// What the cursor holds.
    pub(super) fn after<C: DeserializeOwned>(&self) -> Result<Option<C>, ApiError> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        match bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(position) => Ok(Some(position)),
            None => Err(ApiError::BadRequest("the cursor is not one that this list gave".to_owned())),
        }
    }
}

/// A cursor that leads to what comes after `position`.
pub(super) fn cursor<C: Serialize>(position: &C) -> Option<String> {
    let json = serde_json::to_vec(position).ok()?; // ids, names and numbers: they always have a JSON form
    Some(URL_SAFE_NO_PAD.encode(json))
}

impl<T> Page<T> {
    /// A page of a list that fits in memory. `items` are in the order of their keys, and keys do not repeat.
    pub(super) fn of_sorted<C>(items: Vec<T>, query: &PageQuery, key: impl Fn(&T) -> C) -> Result<Self, ApiError>
    where
        C: Ord + Serialize + DeserializeOwned,
    {
        let after: Option<C> = query.after()?;
        let mut rest = items.into_iter().skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= *after));
        let limit = query.limit() as usize;
        let page: Vec<T> = rest.by_ref().take(limit).collect();
        let next = if rest.next().is_some() { page.last().and_then(|last| cursor(&key(last))) } else { None };
        Ok(Self { items: page, next })
    }

    /// The same page of other items.
    pub(super) fn map<U>(self, shape: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(shape).collect(), next: self.next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn page_after_page_gives_every_item_once(items in proptest::collection::btree_set("[a-z]{1,8}", 0..40), limit in 1u32..12) {
            let items: Vec<String> = items.into_iter().collect();
            let mut query = PageQuery { cursor: None, limit: Some(limit) };

            let mut seen = Vec::new();
            loop {
                let page = Page::of_sorted(items.clone(), &query, Clone::clone).unwrap();
                seen.extend(page.items);
                let Some(next) = page.next else { break };
                query.cursor = Some(next);
            }

            prop_assert_eq!(seen, items);
        }

        #[test]
        fn no_cursor_makes_the_reader_panic(cursor in ".*") {
            let query = PageQuery { cursor: Some(cursor), limit: None };
            let _answer = query.after::<String>();
        }
    }
}
