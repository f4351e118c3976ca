//! SQL that both databases take: one text for a query, one kind of row, one kind of connection.
//!
//! Verbs write their SQL once, in what SQLite and PostgreSQL have in common:
//! - placeholders are `?`, or `?1`, `?2` where a value is used twice; PostgreSQL gets them as `$1`;
//! - whole numbers have 64 bits, moments are microseconds, JSON is text;
//! - truth is bound as `bool` and written `TRUE` or `FALSE` (SQLite keeps it as 1 or 0);
//! - `CASE` instead of `iif` and of `max` with two arguments, `IS NOT DISTINCT FROM` or a second query
//!   instead of `IS ?`, `CAST(sum(x) AS BIGINT)` instead of `sum(x)`;
//! - `instr(text, part)` is SQLite's, and the PostgreSQL schema has a function of that name;
//! - nothing looks into JSON: that is done here, in Rust.
//!
//! Where a query says `*`, the columns are named that its table had when the store was opened (see
//! `columns`): what a newer node adds meanwhile changes nothing here.
//!
//! SQL is `&'static str` throughout: what a customer wrote cannot get into it. A text that holds
//! U+0000, which PostgreSQL cannot keep, is kept with U+FFFD in its place, in either database.

use std::borrow::Cow;
use std::convert::identity;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, ColumnIndex, Postgres, Row as _, Sqlite, Transaction, ValueRef as _,
};
use tokio::time::timeout;

use super::StoreError;
use super::columns::Columns;
use super::postgres::PgTransaction;

/// How long PostgreSQL may stay silent within a query, in milliseconds, before its connection is
/// given up: far above what a query of ours takes, and below the patience of an HTTP client.
const SILENCE_MS: u64 = 5_000;

/// A transaction on one of the two databases. It is rolled back unless it is committed.
pub(super) enum Connection {
    Sqlite(Transaction<'static, Sqlite>, Arc<Columns>),
    Postgres(PgTransaction, Arc<Columns>),
}

impl Connection {
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx, _) => Ok(tx.commit().await?),
            Self::Postgres(tx, _) => tx.commit().await,
        }
    }
}

/// Something bound to a placeholder. Null has a type too: PostgreSQL wants to know it.
pub(super) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Bool(Option<bool>),
    Bytes(Option<Vec<u8>>),
}

/// What may be bound, and as what.
macro_rules! values {
    ($($type:ty => $kind:ident by $convert:expr;)+) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$kind(Some($convert(value)))
            }
        }

        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                Self::$kind(value.map($convert))
            }
        }
    )+};
}

values! {
    &str => Text by str::to_owned;
    &String => Text by String::clone;
    String => Text by identity;
    i64 => Int by identity;
    u32 => Int by i64::from;
    bool => Bool by identity;
    &[u8] => Bytes by <[u8]>::to_vec;
    Vec<u8> => Bytes by identity;
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

/// A query and what is bound to it.
#[must_use = "a query does nothing until it is run"]
pub(super) struct Query {
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

/// A query with this text.
pub(super) fn query(sql: &'static str) -> Query {
    Query { sql: Cow::Borrowed(sql), values: Vec::new() }
}

/// What a statement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done(u64);

impl Done {
    pub(super) const fn rows_affected(self) -> u64 {
        self.0
    }
}

impl Query {
    /// Binds the next value.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it for what it does.
    pub(super) async fn execute(self, on: &mut Connection) -> Result<Done, StoreError> {
        match on {
            Connection::Sqlite(tx, columns) => {
                Ok(Done(self.for_sqlite(columns)?.execute(&mut **tx).await?.rows_affected()))
            }
            Connection::Postgres(tx, columns) => {
                let work = self.for_postgres(columns)?.execute(tx.connection()?);
                let answer = timeout(silence(), work).await;
                Ok(Done(tx.heard(answer)?.rows_affected()))
            }
        }
    }

    /// Runs it for its only row.
    pub(super) async fn fetch_one(self, on: &mut Connection) -> Result<Row, StoreError> {
        self.fetch_optional(on).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// Runs it for its row, if there is one.
    pub(super) async fn fetch_optional(
        self,
        on: &mut Connection,
    ) -> Result<Option<Row>, StoreError> {
        match on {
            Connection::Sqlite(tx, columns) => {
                Ok(self.for_sqlite(columns)?.fetch_optional(&mut **tx).await?.map(Row::Sqlite))
            }
            Connection::Postgres(tx, columns) => {
                let work = self.for_postgres(columns)?.fetch_optional(tx.connection()?);
                let answer = timeout(silence(), work).await;
                Ok(tx.heard(answer)?.map(Row::Postgres))
            }
        }
    }

    /// Runs a statement that writes for the row that it returns, if it returns one. It runs to its end:
    /// SQLite refuses what breaks a foreign key only after the rows.
    pub(super) async fn fetch_written(
        self,
        on: &mut Connection,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch_all(on).await?.pop())
    }

    /// Runs it for all its rows.
    pub(super) async fn fetch_all(self, on: &mut Connection) -> Result<Vec<Row>, StoreError> {
        match on {
            Connection::Sqlite(tx, columns) => {
                let rows = self.for_sqlite(columns)?.fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Connection::Postgres(tx, columns) => {
                let (mut rows, query) = (Vec::new(), self.for_postgres(columns)?);
                // Each row in its time: there may be a hundred thousand of them.
                let answer = {
                    let mut stream = query.fetch(tx.connection()?);
                    loop {
                        match timeout(silence(), stream.try_next()).await {
                            Ok(Ok(Some(row))) => rows.push(Row::Postgres(row)),
                            Ok(Ok(None)) => break Ok(Ok(())),
                            Ok(Err(error)) => break Ok(Err(error)),
                            Err(elapsed) => break Err(elapsed),
                        }
                    }
                };
                tx.heard(answer)?;
                Ok(rows)
            }
        }
    }

    /// Runs it for the first column of its only row.
    pub(super) async fn fetch_scalar<T>(self, on: &mut Connection) -> Result<T, StoreError>
    where
        T: for<'r> Column<'r>,
    {
        Ok(T::read(&self.fetch_one(on).await?, 0)?)
    }

    /// Runs it for the first column of its row, if there is one.
    pub(super) async fn fetch_scalar_optional<T>(
        self,
        on: &mut Connection,
    ) -> Result<Option<T>, StoreError>
    where
        T: for<'r> Column<'r>,
    {
        let row = self.fetch_optional(on).await?;
        Ok(row.map(|row| T::read(&row, 0)).transpose()?)
    }

    /// Runs it for the first column of all its rows.
    pub(super) async fn fetch_scalars<T>(self, on: &mut Connection) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> Column<'r>,
    {
        let rows = self.fetch_all(on).await?;
        rows.iter().map(|row| Ok(T::read(row, 0)?)).collect()
    }

    fn for_sqlite(
        self,
        columns: &Columns,
    ) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, StoreError> {
        let arguments = arguments(self.values)?;
        Ok(sqlx::query_with(AssertSqlSafe(columns.named(&self.sql).into_owned()), arguments))
    }

    fn for_postgres(
        self,
        columns: &Columns,
    ) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>, StoreError> {
        let arguments = arguments(self.values)?;
        Ok(sqlx::query_with(AssertSqlSafe(numbered(&columns.named(&self.sql))), arguments))
    }
}

const fn silence() -> Duration {
    Duration::from_millis(SILENCE_MS)
}

/// The values as a driver wants them.
fn arguments<A>(values: Vec<Value>) -> Result<A, StoreError>
where
    A: Arguments,
    Option<String>: sqlx::Encode<'static, A::Database> + sqlx::Type<A::Database>,
    Option<i64>: sqlx::Encode<'static, A::Database> + sqlx::Type<A::Database>,
    Option<bool>: sqlx::Encode<'static, A::Database> + sqlx::Type<A::Database>,
    Option<Vec<u8>>: sqlx::Encode<'static, A::Database> + sqlx::Type<A::Database>,
{
    let mut arguments = A::default();
    for value in values {
        let added = match value {
            Value::Text(value) => arguments.add(value.map(storable)),
            Value::Int(value) => arguments.add(value),
            Value::Bool(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// The text without what PostgreSQL cannot keep.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The text with PostgreSQL's placeholders: `?3` becomes `$3`, and `?` the number after the highest
/// so far. What stands in quotes stays.
fn numbered(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 16);
    let mut characters = sql.chars().peekable();
    let (mut highest, mut quote) = (0_u32, None);
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if open == character => quote = None,
            ('?', None) => {
                let mut number = 0;
                while let Some(digit) = characters.peek().and_then(|next| next.to_digit(10)) {
                    number = number * 10 + digit;
                    characters.next();
                }
                let number = if number == 0 { highest + 1 } else { number };
                highest = highest.max(number);
                let _ = write!(out, "${number}"); // a String takes everything
                continue;
            }
            _ => {}
        }
        out.push(character);
    }
    out
}

/// A query put together from parts. Parts are constants; everything else is bound.
pub(super) struct QueryBuilder {
    sql: String,
    values: Vec<Value>,
}

impl QueryBuilder {
    pub(super) fn new(sql: &'static str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new() }
    }

    /// Adds text.
    pub(super) fn push(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Adds a placeholder with its value. Parts must not have numbered placeholders besides.
    pub(super) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.sql.push('?');
        self.values.push(value.into());
        self
    }

    pub(super) fn build(self) -> Query {
        Query { sql: Cow::Owned(self.sql), values: self.values }
    }
}

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A column by name or by place.
pub(super) trait Place: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + Copy {}

impl Place for usize {}
impl Place for &'static str {}

/// What a column can be read as.
pub(super) trait Column<'r>: Sized {
    fn read(row: &'r Row, place: impl Place) -> Result<Self, sqlx::Error>;
}

/// Types that both drivers read.
macro_rules! columns {
    ($($type:ty),+) => {$(
        impl<'r> Column<'r> for $type {
            fn read(row: &'r Row, place: impl Place) -> Result<Self, sqlx::Error> {
                match row {
                    Row::Sqlite(row) => row.try_get(place),
                    Row::Postgres(row) => row.try_get(place),
                }
            }
        }
    )+};
}

columns!(&'r str, String, i64, bool, &'r [u8], Vec<u8>);

impl<'r> Column<'r> for u32 {
    fn read(row: &'r Row, place: impl Place) -> Result<Self, sqlx::Error> {
        let wide = i64::read(row, place)?;
        Self::try_from(wide).map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

impl<'r, T: Column<'r>> Column<'r> for Option<T> {
    fn read(row: &'r Row, place: impl Place) -> Result<Self, sqlx::Error> {
        let is_null = match row {
            Row::Sqlite(row) => row.try_get_raw(place)?.is_null(),
            Row::Postgres(row) => row.try_get_raw(place)?.is_null(),
        };
        if is_null { Ok(None) } else { T::read(row, place).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_from_left_to_right() {
        assert_eq!(numbered("a = ? AND b = ? LIMIT ?"), "a = $1 AND b = $2 LIMIT $3");
        assert_eq!(
            numbered("SET a = ?2 WHERE b = ?1 OR c = ?2"),
            "SET a = $2 WHERE b = $1 OR c = $2"
        );
        assert_eq!(numbered("?12 ?"), "$12 $13");
    }

    #[test]
    fn a_question_in_quotes_stays_one() {
        assert_eq!(numbered("'why?' || ? || \"?\""), "'why?' || $1 || \"?\"");
        assert_eq!(numbered("'it''s ?' = ?"), "'it''s ?' = $1");
    }

    #[test]
    fn a_text_that_postgres_cannot_keep_is_made_one_it_can() {
        assert_eq!(storable("a\0b".to_owned()), "a\u{fffd}b");
        assert_eq!(storable("plain".to_owned()), "plain");
    }
}
