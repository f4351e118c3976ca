//! Managed accounts: numbers that organisations buy, and the trunks that come with them.
//!
//! ```text
//!  purchase ─► order: buying ─► provider: trunk, number ─► trunk and number in the store: held
//!              one per number   again after a crash                    │ release
//!                   └──────────── gone, refused ──────────┐            ▼
//!                                                         └─► releasing ─► provider: undone ─► no order
//! ```
//!
//! Invariant: what a provider may have done for us is written in an order before it is asked, and the
//! order stays until the number is held or nothing of it is left at the provider. Whoever works on an
//! order has taken it for a while (`LEASE`); when it dies, another attempt is made from the start, and
//! providers find what is theirs by the order's label. So a purchase is never lost, and nothing is
//! bought twice.

mod order;
mod pool;
mod twilio;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use order::{Line, NumberOrder, OrderState};
pub use pool::Pool;
pub use twilio::Twilio;

use crate::credential::ScopedTo;
use crate::ids::OrganisationId;
use crate::model::{
    AvailableNumber, E164, ManagedAccount, ManagedProvider, NumberSearch, NumberType, PhoneNumber,
};
use crate::settings::ManagedSettings;
use crate::store::{Store, StoreError};

/// How long one attempt at an order may take.
const WORK: Duration = Duration::from_secs(60);
/// How long an order belongs to who has taken it: longer than an attempt, so that two never overlap.
pub(crate) const LEASE: Duration = Duration::from_secs(90);
/// How long a client waits for its purchase; the attempt goes on without it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often orders that are due are looked for.
const ROUND: Duration = Duration::from_secs(5);
/// Orders that are worked on at the same time, of those left over.
const AT_ONCE: u32 = 8;
/// Pauses between attempts: doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long a new organisation's reply waits for its first number; it may come later.
const WELCOME: Duration = Duration::from_secs(3);
/// Numbers that are tried for it: others may take some meanwhile.
const WELCOME_CHOICES: u32 = 5;
/// A purchase that has not come about by then is undone.
const GIVE_UP: Duration = Duration::from_secs(86_400);

/// What a provider takes its time for.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Why a provider did not do what it was asked. The texts are for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The number is not to be had.
    Gone,
    /// It will not, whenever it is asked.
    Refused(String),
    /// It cannot be reached or is at fault, and has bought nothing.
    Unavailable(String),
    /// The same, and the number may have been bought.
    InDoubt(String),
}

/// Where numbers come from. Everything may be asked again: what is done already stays as it is.
pub trait Provider: Send + Sync {
    /// Numbers that can be bought now; some of them may be ours already.
    fn search<'a>(&'a self, wanted: &'a NumberSearch) -> Answer<'a, Vec<AvailableNumber>>;

    /// Makes the trunk at the carrier and buys the number, or finds both where an earlier attempt at
    /// the same order left them.
    fn provision<'a>(&'a self, order: &'a NumberOrder) -> Answer<'a, Line>;

    /// Gives back whatever there is of the order.
    fn release<'a>(&'a self, order: &'a NumberOrder) -> Answer<'a, ()>;

    /// Whether a number is the operator's to sell, as far as is known without asking anybody.
    fn sells(&self, _number: &E164) -> bool {
        false
    }
}

/// One account and who is behind it.
#[derive(Clone)]
pub struct Account {
    /// What organisations see of it.
    pub about: ManagedAccount,
    /// Who sells its numbers.
    pub provider: Arc<dyn Provider>,
}

impl Account {
    /// The account of the operator's own numbers.
    #[must_use]
    pub fn pool(pool: Pool) -> Self {
        let provider = Arc::new(pool);
        Self { about: about("pool", "Number pool", ManagedProvider::Pool), provider }
    }

    /// The account at Twilio.
    #[must_use]
    pub fn twilio(twilio: Twilio) -> Self {
        let provider = Arc::new(twilio);
        Self { about: about("twilio", "Twilio", ManagedProvider::Twilio), provider }
    }
}

fn about(id: &str, name: &str, provider: ManagedProvider) -> ManagedAccount {
    ManagedAccount { id: id.to_owned(), name: name.to_owned(), provider }
}

/// Why nothing was bought, found or given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagedError {
    /// There is no such account.
    #[error("Managed account not found")]
    UnknownAccount,
    /// The number is not to be had.
    #[error("Phone number is not available")]
    Gone,
    /// The provider refused or failed, and nothing was bought.
    #[error("The provider could not do it; nothing was bought")]
    Provider,
    /// It takes longer than a client waits, and goes on.
    #[error("The purchase is under way; the number appears in the list of numbers when it is done")]
    UnderWay,
    /// A rule or the store is against it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The managed accounts. Clones share everything.
#[derive(Clone)]
pub struct Managed {
    store: Store,
    accounts: Arc<[Account]>,
    first: Option<Arc<FirstNumber>>,
}

/// Where new organisations are given their first number.
#[derive(Debug)]
struct FirstNumber {
    account: String,
    /// ISO 3166-1 alpha-2, in capitals.
    country: String,
}

impl std::fmt::Debug for Managed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.accounts.iter().map(|account| &account.about.id);
        f.debug_list().entries(ids).finish()
    }
}

impl Managed {
    /// These accounts.
    #[must_use]
    pub fn new(store: Store, accounts: Vec<Account>) -> Self {
        Self { store, accounts: accounts.into(), first: None }
    }

    /// Gives new organisations a number of this `country` at this `account`; see [`Self::welcome`].
    #[must_use]
    pub fn with_first_numbers(self, account: &str, country: &str) -> Self {
        let first = FirstNumber { account: account.to_owned(), country: country.to_owned() };
        Self { first: Some(Arc::new(first)), ..self }
    }

    /// The accounts that the settings name.
    ///
    /// # Errors
    /// Says what the settings lack.
    pub fn of_settings(store: Store, settings: &ManagedSettings) -> Result<Self, String> {
        let pool = Pool::of_settings(settings).map(Account::pool);
        let twilio = Twilio::of_settings(settings)?.map(Account::twilio);
        let managed = Self::new(store, pool.into_iter().chain(twilio).collect());
        Ok(match &settings.first_number_account {
            Some(account) => managed.with_first_numbers(account, &settings.first_number_country),
            None => managed,
        })
    }

    /// What there is to see of the accounts.
    #[must_use]
    pub fn accounts(&self) -> Vec<ManagedAccount> {
        self.accounts.iter().map(|account| account.about.clone()).collect()
    }

    /// One account.
    ///
    /// # Errors
    /// [`ManagedError::UnknownAccount`].
    pub fn account(&self, id: &str) -> Result<&Account, ManagedError> {
        let found = self.accounts.iter().find(|account| account.about.id == id);
        found.ok_or(ManagedError::UnknownAccount)
    }

    /// Whether a number is the operator's to sell: then nobody may register it on a trunk of their own.
    #[must_use]
    pub fn sells(&self, number: &E164) -> bool {
        self.accounts.iter().any(|account| account.provider.sells(number))
    }

    /// Numbers that can be bought at an account, at most as many as were asked for.
    ///
    /// # Errors
    /// [`ManagedError::UnknownAccount`]; [`ManagedError::Provider`]; otherwise as the database fails.
    pub async fn available(
        &self,
        account: &str,
        wanted: &NumberSearch,
    ) -> Result<Vec<AvailableNumber>, ManagedError> {
        let account = self.account(account)?;
        let found = tokio::time::timeout(PATIENCE, account.provider.search(wanted)).await;
        let found = found.unwrap_or_else(|_| Err(Failure::Unavailable("no answer".to_owned())));
        let found = found.map_err(|why| {
            tracing::warn!(account = account.about.id, ?why, "numbers could not be searched");
            ManagedError::Provider
        })?;
        let ordered: HashSet<String> = self.store.ordered_numbers().await?.into_iter().collect();
        let snapshot = self.store.snapshot().load();
        let free = |number: &AvailableNumber| {
            let number = number.phone_number.as_str();
            snapshot.number(number).is_none() && !ordered.contains(number)
        };
        let most = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        Ok(found.into_iter().filter(free).take(most).collect())
    }

    /// Buys a number: at the provider, with a managed trunk for it here. It goes on even if the caller
    /// does not wait for it.
    ///
    /// # Errors
    /// [`ManagedError`], all kinds; [`StoreError::Refused`] at the organisation's limit;
    /// [`StoreError::Conflict`] when somebody has the number or is buying it.
    pub async fn purchase(
        &self,
        scope: &ScopedTo<OrganisationId>,
        account: &str,
        number: &E164,
    ) -> Result<PhoneNumber, ManagedError> {
        let account = self.account(account)?.clone();
        let order = self.store.open_order(scope, &account.about.id, number).await?;
        let id = order.id;
        tracing::info!(order = %id, account = account.about.id, "a number is being bought");
        let managed = self.clone();
        let work = tokio::spawn(async move { managed.buy(&account, &order).await });
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(ManagedError::UnderWay),
        }
    }

    /// Gives a new organisation its first number, and with it a trunk, if the settings say at which
    /// account. It goes on even if the caller does not wait for it; when there is none to be had, the log
    /// says so and the organisation begins without.
    pub async fn welcome(&self, scope: ScopedTo<OrganisationId>) {
        let Some(first) = self.first.clone() else { return };
        let managed = self.clone();
        let work = tokio::spawn(async move {
            let organization = scope.organisation();
            match managed.give(&scope, &first).await {
                Ok(Some(number)) => {
                    tracing::info!(%organization, %number, "a first number was given")
                }
                Ok(None) => tracing::warn!(%organization, "no first number is to be had"),
                Err(why) => tracing::warn!(%organization, %why, "no first number could be given"),
            }
        });
        let _ = tokio::time::timeout(WELCOME, work).await;
    }

    async fn give(
        &self,
        scope: &ScopedTo<OrganisationId>,
        first: &FirstNumber,
    ) -> Result<Option<E164>, ManagedError> {
        let wanted = NumberSearch {
            country: first.country.clone(),
            kind: NumberType::Local,
            voice_enabled: true,
            area_code: None,
            limit: WELCOME_CHOICES,
        };
        for found in self.available(&first.account, &wanted).await? {
            match self.purchase(scope, &first.account, &found.phone_number).await {
                Ok(bought) => return Ok(Some(bought.phone_number)),
                Err(ManagedError::Gone | ManagedError::Store(StoreError::Conflict(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Gives a bought number back. Its calls end to come in at once; the provider is told until it
    /// understands.
    ///
    /// # Errors
    /// [`ManagedError::UnknownAccount`]; [`StoreError::NotFound`] if the organisation has not bought
    /// the number there.
    pub async fn release(
        &self,
        scope: &ScopedTo<OrganisationId>,
        account: &str,
        number: &E164,
    ) -> Result<(), ManagedError> {
        let account = self.account(account)?.clone();
        let order = self.store.release_number(scope, &account.about.id, number).await?;
        let managed = self.clone();
        tokio::spawn(async move { managed.undo(&account, &order).await });
        Ok(())
    }

    /// Works on orders that are left over, for as long as the program runs.
    pub async fn run(self) {
        let mut every = tokio::time::interval(ROUND);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(error) = self.resume().await {
                tracing::debug!(%error, "orders of numbers cannot be looked at");
            }
        }
    }

    /// One round of [`Managed::run`]: takes the orders that are due and works on each once. Returns how
    /// many there were.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn resume(&self) -> Result<usize, StoreError> {
        let due = self.store.claim_orders(AT_ONCE).await?;
        let mut work = tokio::task::JoinSet::new();
        let count = due.len();
        for order in due {
            let managed = self.clone();
            work.spawn(async move { managed.work_on(&order).await });
        }
        work.join_all().await;
        Ok(count)
    }

    async fn work_on(&self, order: &NumberOrder) {
        let Ok(account) = self.account(&order.account).cloned() else {
            tracing::warn!(
                order = %order.id, account = order.account,
                "an order waits for an account that the settings no longer name"
            );
            return self.put_off(order).await;
        };
        match order.state {
            OrderState::Buying => drop(self.buy(&account, order).await),
            OrderState::Releasing => self.undo(&account, order).await,
            OrderState::Held => {}
        }
    }

    /// One attempt to buy.
    async fn buy(
        &self,
        account: &Account,
        order: &NumberOrder,
    ) -> Result<PhoneNumber, ManagedError> {
        let attempt = tokio::time::timeout(WORK, account.provider.provision(order)).await;
        let late = |_| Err(Failure::InDoubt("no answer in time".to_owned()));
        let why = match attempt.unwrap_or_else(late) {
            Ok(line) => match self.store.fill_order(order, line).await {
                Ok(number) => {
                    tracing::info!(order = %order.id, "a number is held");
                    return Ok(number);
                }
                Err(error) => {
                    tracing::warn!(order = %order.id, %error, "a bought number is not recorded yet");
                    Failure::InDoubt("not recorded".to_owned())
                }
            },
            Err(why) => why,
        };
        tracing::warn!(order = %order.id, account = account.about.id, ?why, "a number was not bought");
        let outcome = match why {
            Failure::Gone => ManagedError::Gone,
            Failure::Refused(_) => ManagedError::Provider,
            Failure::Unavailable(_) if !order.is_resumed() => ManagedError::Provider,
            _ if self.store.age(order) > GIVE_UP => ManagedError::Provider,
            Failure::Unavailable(_) | Failure::InDoubt(_) => {
                self.put_off(order).await;
                return Err(ManagedError::UnderWay);
            }
        };
        match self.store.cancel_order(order.id).await {
            Ok(()) => self.undo(account, order).await,
            // The lease runs out, and another attempt comes to the same end.
            Err(error) => tracing::warn!(order = %order.id, %error, "an order stays open"),
        }
        Err(outcome)
    }

    /// One attempt to leave nothing of an order at the provider.
    async fn undo(&self, account: &Account, order: &NumberOrder) {
        let attempt = tokio::time::timeout(WORK, account.provider.release(order)).await;
        let late = |_| Err(Failure::Unavailable("no answer in time".to_owned()));
        match attempt.unwrap_or_else(late) {
            Ok(()) | Err(Failure::Gone) => {
                if let Err(error) = self.store.close_order(order.id).await {
                    tracing::warn!(order = %order.id, %error, "an order that is done stays open");
                }
            }
            Err(why) => {
                tracing::warn!(order = %order.id, ?why, "a number was not given back, trying again");
                self.put_off(order).await;
            }
        }
    }

    async fn put_off(&self, order: &NumberOrder) {
        let pause = PAUSE_FIRST.saturating_mul(1 << order.attempts.min(10)).min(PAUSE_MAX);
        if let Err(error) = self.store.put_order_off(order.id, pause).await {
            tracing::warn!(order = %order.id, %error, "an order waits for its lease to run out");
        }
    }
}
