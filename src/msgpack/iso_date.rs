//! Milliseconds since 1970 to the text of JavaScript's `Date.prototype.toISOString`.
//!
//! Pure arithmetic; no time zone, no clock.
//!
//! Source: ECMA-262 "Date Time String Format", "Expanded Years", "TimeClip"; the calendar arithmetic is Howard
//! Hinnant's `civil_from_days`.

/// Furthest instant from 1970 that a JavaScript date can hold, in milliseconds.
const MAX_MILLIS: f64 = 8.64e15;
/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// Returns `millis` as `toISOString` writes it, or `None` if JavaScript has no such date (JSON: `null`).
pub(super) fn from_millis(millis: f64) -> Option<String> {
    if millis.is_nan() || millis.abs() > MAX_MILLIS {
        return None;
    }
    // TimeClip cuts fractions of a millisecond off towards zero, as does this conversion.
    let millis = millis as i64;
    let (days, in_day) = (millis.div_euclid(DAY), millis.rem_euclid(DAY));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.abs()),
    };
    Some(format!(
        "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
    ))
}

/// Returns year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_javascript_prints_them() {
        // Each pair was printed by Node: new Date(x).toISOString().
        for (millis, text) in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_123.0, "2023-11-14T22:13:20.123Z"),
            (951_782_400_000.0, "2000-02-29T00:00:00.000Z"),
            (-1.0, "1969-12-31T23:59:59.999Z"),
            (-0.5, "1970-01-01T00:00:00.000Z"),
            (-62_167_219_200_000.0, "0000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001.0, "-000001-12-31T23:59:59.999Z"),
            (253_402_300_800_000.0, "+010000-01-01T00:00:00.000Z"),
            (8.64e15, "+275760-09-13T00:00:00.000Z"),
            (-8.64e15, "-271821-04-20T00:00:00.000Z"),
        ] {
            assert_eq!(from_millis(millis).as_deref(), Some(text), "{millis}");
        }
    }

    #[test]
    fn instants_that_javascript_lacks_are_none() {
        for millis in [f64::NAN, f64::INFINITY, 8.64e15 + 1.0, -8.64e15 - 1.0] {
            assert_eq!(from_millis(millis), None, "{millis}");
        }
    }
}
