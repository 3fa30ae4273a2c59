//! Decodes an event and validates its fields.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

const LOG_ID_BYTES_MAX: usize = 512;
const DEPTH_MAX: usize = 32;

/// An event as a client sends it; text borrows from the body unless it holds an escape.
#[derive(Default)]
pub struct Event<'a> {
    pub page: Cow<'a, str>,
    pub event: Cow<'a, str>,
    pub label: Option<Cow<'a, str>>,
    pub target: Option<Cow<'a, str>>,
    pub section: Option<Cow<'a, str>>,
    pub param: Option<&'a RawValue>,
    pub log_id: Option<Cow<'a, str>>,
    pub timestamp: Option<DateTime<Utc>>,
    pub sent_at: Option<DateTime<Utc>>,
    pub extra: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// Text that borrows if it can. A `Cow` by itself would always be copied.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Event<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Event<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event<'de>, A::Error> {
        let mut event = Event::default();
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "page" => event.page = map.next_value::<Text>()?.0,
                "event" => event.event = map.next_value::<Text>()?.0,
                "label" => event.label = map.next_value::<Option<Text>>()?.map(|text| text.0),
                "target" => event.target = map.next_value::<Option<Text>>()?.map(|text| text.0),
                "section" => event.section = map.next_value::<Option<Text>>()?.map(|text| text.0),
                "log_id" => event.log_id = map.next_value::<Option<Text>>()?.map(|text| text.0),
                "param" => event.param = Some(map.next_value()?),
                "timestamp" => event.timestamp = time(map.next_value()?).map_err(A::Error::custom)?,
                "sent_at" => event.sent_at = time(map.next_value()?).map_err(A::Error::custom)?,
                _ => event.extra.push((name, map.next_value()?)),
            }
        }
        Ok(event)
    }
}

/// Reads a time: RFC 3339, or milliseconds since 1970.
fn time(raw: &RawValue) -> Result<Option<DateTime<Utc>>, &'static str> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    let read = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(written) => DateTime::parse_from_rfc3339(written).ok().map(|time| time.to_utc()),
        None => text.parse().ok().and_then(DateTime::from_timestamp_millis),
    };
    read.map(Some).ok_or("a time is not valid")
}

/// Returns whether JSON is nested deeper than OpenSearch takes it. Braces in text do not count.
fn too_deep(raw: &RawValue) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in raw.get().bytes() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => (),
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

pub fn decode(body: &[u8]) -> Result<Event<'_>, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

impl Event<'_> {
    pub fn validated(self) -> Result<Self, String> {
        if self.page.is_empty() {
            return Err("page is required".to_owned());
        }
        if self.event.is_empty() {
            return Err("event is required".to_owned());
        }
        if self
            .log_id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > LOG_ID_BYTES_MAX)
        {
            return Err("log_id must have 1 to 512 bytes".to_owned());
        }
        if self
            .param
            .into_iter()
            .chain(self.extra.iter().map(|(_, value)| *value))
            .any(too_deep)
        {
            return Err("nested too deeply".to_owned());
        }
        Ok(self)
    }
}
