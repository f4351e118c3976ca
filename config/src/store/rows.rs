//! What every noun's file needs to read rows and to list them.

use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use super::sql::{self, Column, Connection, QueryBuilder, Row};
use crate::clock::Timestamp;
use crate::model::{Page, Period};

/// A column as the database has it.
pub(super) fn raw<'r, T>(row: &'r Row, column: &'static str) -> Result<T, StoreError>
where
    T: Column<'r>,
{
    Ok(T::read(row, column)?)
}

/// A text column that prints and parses.
pub(super) fn parsed<T: FromStr>(row: &Row, column: &'static str) -> Result<T, StoreError> {
    let text: &str = raw(row, column)?;
    text.parse().map_err(|_| damaged(column))
}

/// The same, or null.
pub(super) fn parsed_opt<T: FromStr>(
    row: &Row,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = raw(row, column)?;
    text.map(|text| text.parse().map_err(|_| damaged(column))).transpose()
}

/// A JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &Row, column: &'static str) -> Result<T, StoreError> {
    let text: &str = raw(row, column)?;
    serde_json::from_str(text).map_err(|_| damaged(column))
}

/// The same, or null.
pub(super) fn json_opt<T: DeserializeOwned>(
    row: &Row,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = raw(row, column)?;
    text.map(|text| serde_json::from_str(text).map_err(|_| damaged(column))).transpose()
}

/// A column that holds the wire name of an enum's value.
pub(super) fn word<T: DeserializeOwned>(row: &Row, column: &'static str) -> Result<T, StoreError> {
    let text: String = raw(row, column)?;
    serde_json::from_value(text.into()).map_err(|_| damaged(column))
}

/// The same, or null.
pub(super) fn word_opt<T: DeserializeOwned>(
    row: &Row,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let text: Option<String> = raw(row, column)?;
    text.map(|text| serde_json::from_value(text.into()).map_err(|_| damaged(column))).transpose()
}

/// A column of microseconds.
pub(super) fn time(row: &Row, column: &'static str) -> Result<Timestamp, StoreError> {
    raw(row, column).map(Timestamp::from_micros)
}

/// The same, or null.
pub(super) fn time_opt(row: &Row, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
    raw::<Option<i64>>(row, column).map(|micros| micros.map(Timestamp::from_micros))
}

/// A column of a small whole number.
pub(super) fn small(row: &Row, column: &'static str) -> Result<u32, StoreError> {
    u32::try_from(raw::<i64>(row, column)?).map_err(|_| damaged(column))
}

/// The same, or null.
pub(super) fn small_opt(row: &Row, column: &'static str) -> Result<Option<u32>, StoreError> {
    let value: Option<i64> = raw(row, column)?;
    value.map(|value| u32::try_from(value).map_err(|_| damaged(column))).transpose()
}

fn damaged(column: &'static str) -> StoreError {
    tracing::error!(column, "a stored value does not read");
    StoreError::Fault
}

/// A value as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "a value does not write");
        StoreError::Fault
    })
}

/// The same, or null.
pub(super) fn to_json_opt<T: Serialize>(value: Option<&T>) -> Result<Option<String>, StoreError> {
    value.map(to_json).transpose()
}

/// A value as JSON.
pub(super) fn to_value<T: Serialize>(value: &T) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|error| {
        tracing::error!(%error, "a value does not write");
        StoreError::Fault
    })
}

/// The wire name of an enum's value.
pub(super) fn to_word<T: Serialize>(value: T) -> Result<String, StoreError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(StoreError::Fault),
    }
}

/// The query for [`free_stamp`] in one table: the time that is wanted, or the first gap after it. As a
/// part of another statement it says where that has the time.
macro_rules! free_stamp_in {
    ($table:literal) => {
        free_stamp_in!($table, "?1")
    };
    ($table:literal, $wanted:literal) => {
        concat!(
            "SELECT coalesce((SELECT ",
            $wanted,
            " WHERE NOT EXISTS (SELECT 1 FROM ",
            $table,
            " WHERE created_at = ",
            $wanted,
            ")), (SELECT t.created_at + 1 FROM ",
            $table,
            " t WHERE t.created_at >= ",
            $wanted,
            " AND NOT EXISTS (SELECT 1 FROM ",
            $table,
            " n WHERE n.created_at = t.created_at + 1) ORDER BY t.created_at LIMIT 1))"
        )
    };
}
pub(super) use free_stamp_in;

/// The first free `created_at` from `wanted` on, by a query of [`free_stamp_in`].
pub(super) async fn free_stamp(
    connection: &mut Connection,
    query: &'static str,
    wanted: Timestamp,
) -> Result<Timestamp, StoreError> {
    let free = sql::query(query).bind(wanted.micros()).fetch_scalar(connection).await?;
    Ok(Timestamp::from_micros(free))
}

/// Adds a condition if there is something to compare with. `sql` ends where the value goes.
pub(super) fn and<T>(query: &mut QueryBuilder, sql: &'static str, value: Option<T>)
where
    T: Into<sql::Value>,
{
    if let Some(value) = value {
        query.push(" AND ").push(sql).push(" ").push_bind(value);
    }
}

/// Adds "holds this text, whatever the case". `sql` names the column, already in lower case.
pub(super) fn and_holds(query: &mut QueryBuilder, sql: &'static str, part: Option<&String>) {
    if let Some(part) = part {
        query.push(" AND instr(").push(sql).push(", ").push_bind(part.to_lowercase()).push(") > 0");
    }
}

/// Adds the bounds on when; the listed table is called `t`.
pub(super) fn and_period(query: &mut QueryBuilder, period: &Period) {
    and(query, "t.created_at >=", period.created_after.map(Timestamp::micros));
    and(query, "t.created_at <=", period.created_before.map(Timestamp::micros));
    and(query, "t.updated_at >=", period.updated_after.map(Timestamp::micros));
    and(query, "t.updated_at <=", period.updated_before.map(Timestamp::micros));
}

/// Adds the cursor, the order and the limit; the listed table is called `t`.
pub(super) fn paged(query: &mut QueryBuilder, page: Page) {
    and(query, "t.created_at <", page.before.map(Timestamp::micros));
    query.push(" ORDER BY t.created_at DESC LIMIT ").push_bind(page.limit.clamp(1, Page::MAX));
}
