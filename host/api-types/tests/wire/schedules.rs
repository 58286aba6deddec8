//! Schedules.

use amends_api_types::ScheduleView;

use crate::kept::is_kept;

#[test]
fn a_schedule() {
    is_kept::<ScheduleView>(&[
        r#"{
            "name": "nightly", "definition": "report", "cron": "0 2 * * *", "timezone": "UTC",
            "next": []
        }"#,
        r#"{
            "name": "nightly", "definition": "report", "cron": "0 2 * * *", "timezone": "Europe/Vienna",
            "next": ["2026-01-03T01:00:00.000Z", "2026-01-04T01:00:00.000Z"],
            "started_at": "2026-01-01T01:00:00.000Z", "saga": "019b0000-0000-7000-8000-000000000001",
            "skipped_at": "2026-01-02T01:00:00.000Z", "skipped_reason": "the saga is running",
            "error": "the host is full"
        }"#,
    ]);
}
