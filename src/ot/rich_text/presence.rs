//! Transforms a selection by an op.

use serde_json::{Map, Value};

use super::super::error::OtError;
use super::delta::Delta;

/// Transforms the presence `{index, length, ..}` by `op`. A null, a presence without a position, is unchanged.
///
/// # Errors
/// If it is neither. The value is unchanged then.
pub(in crate::ot) fn transform_presence(
    value: &mut Value,
    op: &Delta,
    own: bool,
) -> Result<(), OtError> {
    let range = match value {
        Value::Null => return Ok(()),
        Value::Object(range) => range,
        _ => return Err(NOT_A_RANGE),
    };
    let (index, length) = (whole(range, "index")?, whole(range, "length")?);
    let end = index.checked_add(length).ok_or(NOT_A_RANGE)?;
    let (index, end) = (
        op.transform_position(index, own),
        op.transform_position(end, own),
    );
    range.insert("index".to_owned(), index.into());
    range.insert("length".to_owned(), end.saturating_sub(index).into());
    Ok(())
}

fn whole(range: &Map<String, Value>, key: &str) -> Result<u64, OtError> {
    let value = range.get(key).ok_or(NOT_A_RANGE)?;
    let number = value.as_u64().or_else(|| {
        let number = value
            .as_f64()
            .filter(|number| *number >= 0.0 && number.fract() == 0.0)?;
        Some(number as u64)
    });
    number
        .filter(|&number| number <= POSITION_MAX)
        .ok_or(NOT_A_RANGE)
}

/// JavaScript's largest safe integer.
const POSITION_MAX: u64 = (1 << 53) - 1;

const NOT_A_RANGE: OtError =
    OtError::Malformed("Presence must be null or have an index and a length");
