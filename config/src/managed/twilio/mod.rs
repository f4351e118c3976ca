//! Numbers from Twilio, over its REST API.
//!
//! For each order, in this order: a credential list with one credential, an elastic SIP trunk that asks
//! for it and sends calls to our trunk, and last the number, bought straight onto that trunk. So money
//! is spent in one request, after everything else has succeeded. All of it carries the order's label, by
//! which a later attempt finds what an earlier one has made.

mod wire;

use serde_json::Value;

use super::pool::allowed;
use super::{Answer, Failure, Line, NumberOrder, Provider};
use crate::model::{
    AvailableNumber, InboundConfig, MediaEncryption, NumberSearch, NumberType, OutboundConfig,
    TransferMode, Transport,
};
use crate::secret::Secret;
use crate::settings::ManagedSettings;
use wire::{Trouble, Wire, form};

/// Error codes of a number that cannot be bought: invalid, and not (or no longer) for sale.
const NOT_FOR_SALE: [u64; 2] = [21_421, 21_422];

/// Items of a page when something of ours is looked for.
const PAGE: &str = "PageSize=1000";

/// The account at Twilio.
pub struct Twilio {
    wire: Wire,
    /// `https://api.twilio.com/2010-04-01/Accounts/AC…`
    account: String,
    /// `https://trunking.twilio.com/v1/Trunks`
    trunks: String,
    secure: bool,
    inbound: InboundConfig,
}

impl Twilio {
    /// The account of the settings, if they have one.
    ///
    /// # Errors
    /// When no client for HTTPS can be made.
    pub fn of_settings(settings: &ManagedSettings) -> Result<Option<Self>, String> {
        let (Some(sid), Some(token)) = (&settings.twilio_account_sid, &settings.twilio_auth_token)
        else {
            return Ok(None);
        };
        let secure = settings.twilio_secure;
        let encryption = if secure { MediaEncryption::Require } else { MediaEncryption::Disable };
        let base = |url: &str| url.trim_end_matches('/').to_owned();
        let (api, trunking) = (base(&settings.twilio_api_url), base(&settings.twilio_trunking_url));
        Ok(Some(Self {
            account: format!("{api}/2010-04-01/Accounts/{sid}"),
            trunks: format!("{trunking}/v1/Trunks"),
            wire: Wire::new(sid, token, [api, trunking])?,
            secure,
            inbound: InboundConfig {
                allowed_addresses: allowed(&settings.twilio_allowed_addresses),
                media_encryption: encryption,
                ..InboundConfig::default()
            },
        }))
    }

    /// What is there under `first` and fits; only orders that are resumed can have anything.
    async fn find(
        &self,
        first: &str,
        list: &str,
        fits: impl Fn(&Value) -> bool + Send,
    ) -> Result<Option<Value>, Failure> {
        self.wire.find(first, list, fits).await.map_err(free)
    }

    /// Makes something that costs nothing, and returns its SID.
    async fn make(&self, url: &str, fields: &[(&str, &str)]) -> Result<String, Failure> {
        sid(&self.wire.post(url, &form(fields)).await.map_err(free)?)
    }

    async fn credential_list(&self, order: &NumberOrder) -> Result<String, Failure> {
        let lists = format!("{}/SIP/CredentialLists", self.account);
        let label = order.label();
        let found = match order.is_resumed() {
            true => self.find_credential_list(order).await?,
            false => None,
        };
        let list = match found {
            Some(list) => list,
            None => self.make(&format!("{lists}.json"), &[("FriendlyName", &label)]).await?,
        };
        let credentials = format!("{lists}/{list}/Credentials.json");
        let user = username(order);
        let is_there = order.is_resumed() && {
            let first = format!("{credentials}?{PAGE}");
            self.find(&first, "credentials", |one| is(one, "username", &user)).await?.is_some()
        };
        if !is_there {
            let fields = [("Username", user.as_str()), ("Password", password(order)?.expose())];
            self.make(&credentials, &fields).await?;
        }
        Ok(list)
    }

    async fn find_credential_list(&self, order: &NumberOrder) -> Result<Option<String>, Failure> {
        let first = format!("{}/SIP/CredentialLists.json?{PAGE}", self.account);
        let label = order.label();
        let found = self.find(&first, "credential_lists", |one| is(one, "friendly_name", &label));
        found.await?.as_ref().map(sid).transpose()
    }

    async fn trunk(&self, order: &NumberOrder, credentials: &str) -> Result<String, Failure> {
        let found = match order.is_resumed() {
            true => self.find_trunk(order).await?,
            false => None,
        };
        let (label, domain) = (order.label(), domain(order));
        let trunk = match found {
            Some(trunk) => trunk,
            None => {
                let fields = [
                    ("FriendlyName", label.as_str()),
                    ("DomainName", &domain),
                    ("Secure", if self.secure { "true" } else { "false" }),
                    ("TransferMode", "sip-only"),
                    ("TransferCallerId", "from-transferee"),
                ];
                self.make(&self.trunks, &fields).await?
            }
        };
        let url = format!("{}/{trunk}/CredentialLists", self.trunks);
        let fields = [("CredentialListSid", credentials)];
        self.attach(order, (&url, "credential_lists"), ("sid", credentials), &fields).await?;
        let url = format!("{}/{trunk}/OriginationUrls", self.trunks);
        let uri = self.origination(order);
        let fields = [
            ("FriendlyName", label.as_str()),
            ("SipUrl", &uri),
            ("Weight", "10"),
            ("Priority", "10"),
            ("Enabled", "true"),
        ];
        self.attach(order, (&url, "origination_urls"), ("sip_url", &uri), &fields).await?;
        Ok(trunk)
    }

    async fn find_trunk(&self, order: &NumberOrder) -> Result<Option<String>, Failure> {
        let (first, label) = (format!("{}?{PAGE}", self.trunks), order.label());
        let found = self.find(&first, "trunks", |one| is(one, "friendly_name", &label));
        found.await?.as_ref().map(sid).transpose()
    }

    /// Makes a part of a trunk unless an earlier attempt has.
    async fn attach(
        &self,
        order: &NumberOrder,
        (url, list): (&str, &str),
        (key, value): (&str, &str),
        fields: &[(&str, &str)],
    ) -> Result<(), Failure> {
        let is_there = order.is_resumed() && {
            let first = format!("{url}?{PAGE}");
            self.find(&first, list, |one| is(one, key, value)).await?.is_some()
        };
        if is_there { Ok(()) } else { self.make(url, fields).await.map(drop) }
    }

    /// Where Twilio is to send calls.
    fn origination(&self, order: &NumberOrder) -> String {
        let transport = if self.secure { ";transport=tls" } else { "" };
        format!("{}{transport}", order.inbound_uri)
    }

    /// Buys the number, unless an earlier attempt has.
    async fn number(&self, order: &NumberOrder, trunk: &str) -> Result<(), Failure> {
        if order.is_resumed()
            && let Some(number) = self.find_number(order).await?
        {
            if is(&number, "trunk_sid", trunk) {
                return Ok(());
            }
            let url = format!("{}/IncomingPhoneNumbers/{}.json", self.account, sid(&number)?);
            return self.make(&url, &[("TrunkSid", trunk)]).await.map(drop);
        }
        let label = order.label();
        let fields = [
            ("PhoneNumber", order.phone_number.as_str()),
            ("FriendlyName", &label),
            ("TrunkSid", trunk),
        ];
        let url = format!("{}/IncomingPhoneNumbers.json", self.account);
        self.wire.post(&url, &form(&fields)).await.map(drop).map_err(buying)
    }

    async fn find_number(&self, order: &NumberOrder) -> Result<Option<Value>, Failure> {
        let number = form(&[("PhoneNumber", order.phone_number.as_str())]);
        let first = format!("{}/IncomingPhoneNumbers.json?{number}&{PAGE}", self.account);
        let label = order.label();
        let ours = |one: &Value| {
            is(one, "friendly_name", &label) && is(one, "phone_number", order.phone_number.as_str())
        };
        self.find(&first, "incoming_phone_numbers", ours).await
    }

    fn line(&self, order: &NumberOrder) -> Result<Line, Failure> {
        let outbound = OutboundConfig {
            transport: if self.secure { Transport::Tls } else { Transport::Udp },
            media_encryption: self.inbound.media_encryption,
            transfer_mode: TransferMode::Refer,
            ..OutboundConfig::to(&domain(order), &username(order), password(order)?.clone())
        };
        Ok(Line { inbound: self.inbound.clone(), outbound })
    }
}

impl Provider for Twilio {
    fn search<'a>(&'a self, wanted: &'a NumberSearch) -> Answer<'a, Vec<AvailableNumber>> {
        Box::pin(async move {
            let kind = match wanted.kind {
                NumberType::Local => "Local",
                NumberType::TollFree => "TollFree",
                NumberType::Mobile => "Mobile",
            };
            let limit = wanted.limit.to_string();
            // Nobody here could give the address that some numbers are sold with only.
            let mut fields = vec![("PageSize", &*limit), ("ExcludeAllAddressRequired", "true")];
            if wanted.voice_enabled {
                fields.push(("VoiceEnabled", "true"));
            }
            if let Some(code) = &wanted.area_code {
                fields.push(("AreaCode", code));
            }
            let (account, country, query) = (&self.account, &wanted.country, form(&fields));
            let url = format!("{account}/AvailablePhoneNumbers/{country}/{kind}.json?{query}");
            match self.wire.get(&url).await {
                Ok(page) => Ok(available(&page, wanted.kind)),
                // It sells no such numbers in that country.
                Err(Trouble::Status { status: 404, .. }) => Ok(Vec::new()),
                Err(trouble) => Err(free(trouble)),
            }
        })
    }

    fn provision<'a>(&'a self, order: &'a NumberOrder) -> Answer<'a, Line> {
        Box::pin(async move {
            let credentials = self.credential_list(order).await?;
            let trunk = self.trunk(order, &credentials).await?;
            self.number(order, &trunk).await?;
            self.line(order)
        })
    }

    fn release<'a>(&'a self, order: &'a NumberOrder) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Some(number) = self.find_number(order).await? {
                let url = format!("{}/IncomingPhoneNumbers/{}.json", self.account, sid(&number)?);
                self.wire.delete(&url).await.map_err(free)?;
            }
            if let Some(trunk) = self.find_trunk(order).await? {
                self.wire.delete(&format!("{}/{trunk}", self.trunks)).await.map_err(free)?;
            }
            if let Some(list) = self.find_credential_list(order).await? {
                let url = format!("{}/SIP/CredentialLists/{list}.json", self.account);
                self.wire.delete(&url).await.map_err(free)?;
            }
            Ok(())
        })
    }
}

/// Where our calls enter Twilio.
fn domain(order: &NumberOrder) -> String {
    format!("{}.pstn.twilio.com", order.label())
}

/// At most 32 characters are taken.
fn username(order: &NumberOrder) -> String {
    let id = order.id.as_uuid().simple().to_string();
    format!("tl{}", id.get(..24).unwrap_or(&id))
}

fn password(order: &NumberOrder) -> Result<&Secret<String>, Failure> {
    order.password.as_ref().ok_or_else(|| Failure::Refused("the order has no password".to_owned()))
}

fn is(item: &Value, key: &str, value: &str) -> bool {
    item.get(key).and_then(Value::as_str) == Some(value)
}

fn sid(item: &Value) -> Result<String, Failure> {
    let sid = item.get("sid").and_then(Value::as_str);
    let plain = |sid: &&str| !sid.is_empty() && sid.bytes().all(|b| b.is_ascii_alphanumeric());
    let sid = sid.filter(plain).map(str::to_owned);
    sid.ok_or_else(|| Failure::Unavailable("an answer without a SID".to_owned()))
}

/// What trouble means where nothing is bought.
fn free(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Status { status, .. } if status != 429 && status < 500 => {
            Failure::Refused(trouble.to_string())
        }
        _ => Failure::Unavailable(trouble.to_string()),
    }
}

/// What it means where the number is bought.
fn buying(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Status { status: 400, code: Some(code) } if NOT_FOR_SALE.contains(&code) => {
            Failure::Gone
        }
        Trouble::Lost(_) => Failure::InDoubt(trouble.to_string()),
        Trouble::Status { status, .. } if status >= 500 => Failure::InDoubt(trouble.to_string()),
        _ => free(trouble),
    }
}

fn available(page: &Value, kind: NumberType) -> Vec<AvailableNumber> {
    let text = |item: &Value, key: &str| {
        let text = item.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned)
    };
    let read = |item: &Value| {
        Some(AvailableNumber {
            phone_number: item.get("phone_number")?.as_str()?.parse().ok()?,
            country: text(item, "iso_country")?,
            kind,
            voice_enabled: item.pointer("/capabilities/voice").and_then(Value::as_bool)?,
            locality: text(item, "locality"),
            region: text(item, "region"),
        })
    };
    let list = page.get("available_phone_numbers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_in_doubt_only_where_money_is_spent() {
        let lost = || Trouble::Lost("timed out".to_owned());
        assert!(matches!(free(lost()), Failure::Unavailable(_)));
        assert!(matches!(buying(lost()), Failure::InDoubt(_)));
        let unsent = Trouble::NotSent("refused".to_owned());
        assert!(matches!(buying(unsent), Failure::Unavailable(_)));
        let status = |status, code| Trouble::Status { status, code };
        assert_eq!(buying(status(400, Some(21_422))), Failure::Gone);
        assert!(matches!(buying(status(400, Some(21_631))), Failure::Refused(_)));
        assert!(matches!(buying(status(401, Some(20_003))), Failure::Refused(_)));
        assert!(matches!(buying(status(429, Some(20_429))), Failure::Unavailable(_)));
        assert!(matches!(buying(status(503, None)), Failure::InDoubt(_)));
        assert!(matches!(free(status(503, None)), Failure::Unavailable(_)));
    }
}
