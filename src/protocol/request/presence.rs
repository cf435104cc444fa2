//! Presence values: cursors and names that clients show each other.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Fields, badly_formed};
use crate::doc::{Position, Presence};
use crate::ot::Kind;
use crate::protocol::refusal::{Code, Refusal};

impl Presence {
    /// Corrects the name in a value that is an object with a member `name`, because other users take it for the name of the
    /// publisher. For a signed-in `user`, `name` is set to the user's name and a member `guest` is removed. For a guest the
    /// name is kept and `guest` is set to `true`.
    pub fn sign(&mut self, user: Option<&str>) {
        use serde_json::{Map, Value};
        let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(&self.value) else {
            return;
        };
        let Some(name) = members.get_mut("name") else {
            return;
        };
        let was_signed = user.is_some_and(|user| *name == user);
        if let Some(user) = user {
            *name = user.into();
        }
        let was_guest = match user {
            Some(_) => members.remove("guest").is_none(),
            None => members.insert("guest".to_owned(), true.into()) == Some(true.into()),
        };
        if !was_guest || (user.is_some() && !was_signed) {
            self.value = Value::Object(members).to_string().into();
        }
    }

    /// Ends the presence: the value becomes `null`, with a version above the last one of its client.
    pub fn end(&mut self) {
        self.value = "null".into();
        self.version += 1;
    }
}

impl Fields<'_> {
    pub(super) fn presence(&self) -> Result<Presence, Refusal> {
        let channel = self.channel()?;
        let id = self
            .id
            .name("Invalid presence ID")?
            .ok_or_else(|| badly_formed("Invalid presence ID"))?;
        let version = self.pv.count("Invalid presence version")?.unwrap_or(0);
        let value: Arc<str> = self.p.0.map_or("null", RawValue::get).into();
        if depth(&value) > PRESENCE_DEPTH_MAX {
            let message = format!("A presence's value is nested at most {PRESENCE_DEPTH_MAX} deep");
            return Err(badly_formed(&message));
        }
        let position = match (self.c.json(), self.d.json()) {
            (None, None) => None,
            _ => self.position()?,
        };
        Ok(Presence {
            channel,
            id,
            version,
            value,
            position,
        })
    }

    fn position(&self) -> Result<Option<Position>, Refusal> {
        let doc = self.doc()?;
        let Some(revision) = self.v.revision()? else {
            return Ok(None);
        };
        let Some(name) = self.t.string("Invalid type")? else {
            return Ok(None);
        };
        let kind = Kind::parse(&name)
            .ok_or_else(|| Refusal::new(Code::TypeNotRecognized, "Unknown type"))?;
        if kind != Kind::RichText {
            let message = format!("Type does not support presence: {name}");
            return Err(Refusal::new(Code::NoPresence, message));
        }
        Ok(Some(Position {
            doc,
            revision,
            kind,
        }))
    }
}

/// The deepest nesting of a presence's value. The clients that receive it may parse it recursively.
const PRESENCE_DEPTH_MAX: usize = 32;

/// The depth of nesting of a JSON value; 0 for a value that is not an array or object.
pub(super) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
