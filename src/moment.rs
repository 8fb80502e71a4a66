//! Moments of the wall clock, as RFC 3339 writes them, in UTC.

use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;
/// The days of 400 years.
const ERA: u64 = 146_097;
/// 1970-01-01, in days since March of the year 0.
const EPOCH: u64 = 719_468;

/// The time since 1970. A clock that is set before it counts as 1970.
pub(crate) fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

/// A time since 1970 as text, such as `2026-11-26T11:17:00.250Z`. Later moments sort after earlier ones.
pub(crate) fn text(since: Duration) -> String {
    let seconds = since.as_secs();
    let (mut days, of_day) = (seconds / DAY, seconds % DAY);
    // Years from March to February, so that the leap day is the last one.
    days += EPOCH;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        era * 400 + year + later,
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_millis()
    )
}

/// The time since 1970 of a text like those of [`text`], or of its beginning: a date, or a date and a
/// time, with a space or a `T` between them.
pub(crate) fn read(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let mut of_date = |from, to| {
        let part = date.next()?.ok()?;
        (from..=to).contains(&part).then_some(part)
    };
    let (year, month, day) = (of_date(1970, 9999)?, of_date(1, 12)?, of_date(1, 31)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut seconds = 0;
    for (part, (unit, most)) in
        time.split(':')
            .filter(|part| !part.is_empty())
            .zip([(3_600, 23), (60, 59), (1, 60)])
    {
        let part = part.parse::<u64>().ok().filter(|part| *part <= most)?;
        seconds += part * unit;
    }
    let well_formed = time.is_empty() || (1..=2).contains(&time.matches(':').count());
    let millis = match fraction {
        "" => 0,
        _ => format!("{fraction:0<3}").get(..3)?.parse().ok()?,
    };
    let of_month = day;
    // The inverse of the above.
    let (month, year) = match month {
        3.. => (month - 3, year),
        _ => (month + 9, year - 1),
    };
    let days = year / 400 * ERA + year % 400 * 365 + year % 400 / 4 - year % 400 / 100
        + (153 * month + 2) / 5
        + day
        - 1;
    let days = days.checked_sub(EPOCH)?;
    let moment = Duration::from_secs(days * DAY + seconds) + Duration::from_millis(millis);
    // The 31st of February would be a day of March.
    let is_day = self::text(moment).get(8..10)?.parse() == Ok(of_month);
    (well_formed && is_day).then_some(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_date() {
        for (seconds, written) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let since = Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(text(since), written);
            assert_eq!(read(written), Some(since));
        }
    }

    #[test]
    fn the_beginning_of_a_moment_will_do() {
        let day = Duration::from_secs(951_782_400);
        let minutes = |count: u64| day + Duration::from_secs(60 * count);
        for (written, since) in [
            ("2000-02-29", Some(day)),
            ("2000-02-29T01:02", Some(minutes(62))),
            ("2000-02-29 01:02:00", Some(minutes(62))),
            (
                "2000-02-29 01:02:00.5Z",
                Some(minutes(62) + Duration::from_millis(500)),
            ),
            ("2000-02-29 01", None),
            ("2000-02-29 24:00", None),
            ("2000-13-01", None),
            ("2000-02-30", None),
            ("2001-02-29", None),
            ("2000-2-29", Some(day)),
            ("2000-02-29 23:59:60", None),
            ("2000-02", None),
            ("1969-12-31", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(read(written), since, "{written}");
        }
    }
}
