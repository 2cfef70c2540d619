//! What is asked for: each request is one act of the core, logged, and answered once it is durable.
//!
//! A choice by header, a limit or an end needs the entries listed first: they are looked at a page at a time, and what
//! was chosen is named to the core in one act. One that finds more than a step may take says where the next goes on.
//!
//! # Invariants
//! - Between the act and its line in the log nothing is awaited: what was done is logged, whoever hangs up.
//! - No answer to an act that was done leaves before its gate is durable.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::task::yield_now;

use crate::api;
use crate::base::{PATTERN_FORM, Policies, SETTINGS, SessionNo, Setting, SettingKey, Settings};
use crate::port::{Act, EntryView, PAGE_COUNT_MAX, Refusal, Selection};

use super::problem::Problem;
use super::reader::{Filter, Groups, Seen, headers, read};
use super::{Caller, Parts};

/// What is done with chosen messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb<'a> {
    Purge,
    Move(&'a str),
    Copy(&'a str),
    Requeue,
}

impl Verb<'_> {
    fn act(self, queue: &str, selection: Selection) -> Act {
        let queue = queue.to_owned();
        match self {
            Self::Purge => Act::Purge { queue, selection },
            Self::Move(to) => Act::Move {
                from: queue,
                to: to.to_owned(),
                selection,
            },
            Self::Copy(to) => Act::Copy {
                from: queue,
                to: to.to_owned(),
                selection,
            },
            Self::Requeue => Act::Requeue { queue, selection },
        }
    }
}

/// Entries chosen for one act.
#[derive(Debug, Default)]
struct Chosen {
    sequences: Vec<u64>,
    held_count: u64,
    skipped_count: u64,
    /// The first entry that was not looked at, if there is one.
    next: Option<u64>,
}

impl Parts {
    /// Purges, moves, copies or requeues messages of a queue: one step.
    pub(super) async fn act_on_messages(
        &self,
        queue: &str,
        verb: Verb<'_>,
        wanted: &api::Selection,
        caller: Caller,
    ) -> Result<api::Acted, Problem> {
        if let Verb::Move(to) | Verb::Copy(to) = verb {
            self.check_name(to)?;
        }
        let filter = Filter::parse(&wanted.header)?;
        let view = self.shared.core.queue(queue).ok_or(Refusal::QueueUnknown)?;
        let from = wanted.from.unwrap_or(0);
        let until = wanted.until.unwrap_or(view.next_sequence);
        // Nothing is chosen but a beginning: the core needs no list, and takes all that one step may in one go.
        if filter.is_empty() && !wanted.set_aside && wanted.limit.is_none() && wanted.until.is_none() {
            let act = verb.act(queue, Selection::From(from));
            let mut acted = self.act(&act, wanted.dry_run, caller).await?;
            acted.next = acted.next.map(|next| api::Next { until, ..next });
            return Ok(acted);
        }
        let chosen = self.choose(queue, verb, &filter, from..until, wanted).await;
        let act = verb.act(queue, Selection::Sequences(chosen.sequences));
        let mut acted = self.act(&act, wanted.dry_run, caller).await?;
        acted.held_count += chosen.held_count;
        acted.skipped_count += chosen.skipped_count;
        acted.next = chosen.next.map(|from| api::Next { from, until });
        Ok(acted)
    }

    /// Looks at entries until one step has enough.
    async fn choose(
        &self,
        queue: &str,
        verb: Verb<'_>,
        filter: &Filter,
        range: std::ops::Range<u64>,
        wanted: &api::Selection,
    ) -> Chosen {
        let _turn = self.looks.acquire().await;
        let step = self.shared.session.get().limits.admin_act_count_max;
        let limit = wanted
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut chosen = Chosen::default();
        let mut scan_left = api::SCAN_COUNT_MAX;
        let mut from = range.start;
        loop {
            let page = self.shared.core.entries(queue, from, PAGE_COUNT_MAX);
            let within = page
                .items
                .into_iter()
                .take_while(|entry| entry.sequence < range.end)
                .filter(|entry| entry.set_aside || !wanted.set_aside);
            let mut groups = Groups::of(within);
            loop {
                let need = |entry: &EntryView| match filter.is_empty() {
                    true => 0,
                    false => entry.header_len as usize,
                };
                let group = groups.next(need);
                if group.is_empty() {
                    break;
                }
                let seen = match filter.is_empty() {
                    true => group
                        .into_iter()
                        .map(|(entry, _)| Seen::Read(entry, Vec::new()))
                        .collect(),
                    false => read(&self.shared, queue, group).await,
                };
                for seen in seen {
                    // What cannot be read has no headers to be chosen by.
                    let Seen::Read(entry, block) = seen else { continue };
                    if chosen.sequences.len() >= limit {
                        return chosen;
                    }
                    if chosen.sequences.len() >= step || scan_left == 0 {
                        chosen.next = Some(entry.sequence);
                        return chosen;
                    }
                    scan_left -= 1;
                    if filter.is_empty() || filter.takes(&headers(&block)) {
                        chosen.add(&entry, verb);
                    }
                }
            }
            match page.next {
                Some(next) if next < range.end && chosen.sequences.len() < limit => from = next,
                _ => return chosen,
            }
            yield_now().await;
        }
    }

    /// Purges a whole queue, and ends its subscriptions if asked to.
    pub(super) async fn delete(
        &self,
        queue: &str,
        wanted: &api::Delete,
        caller: Caller,
    ) -> Result<api::Acted, Problem> {
        let act = Act::Delete {
            queue: queue.to_owned(),
            force: wanted.force,
        };
        self.act(&act, wanted.dry_run, caller).await
    }

    pub(super) async fn disconnect(
        &self,
        session: SessionNo,
        dry_run: bool,
        caller: Caller,
    ) -> Result<api::Acted, Problem> {
        self.act(&Act::Disconnect { session }, dry_run, caller).await
    }

    /// States what holds for a pattern of names; `None`: what the configuration says.
    pub(super) async fn state_policy(
        &self,
        pattern: &str,
        settings: Option<&BTreeMap<String, Value>>,
        dry_run: bool,
        caller: Caller,
    ) -> Result<api::Acted, Problem> {
        if !Policies::is_pattern(pattern) {
            return Err(Problem::bad(format!("{pattern:?} is not {PATTERN_FORM}")));
        }
        let act = Act::StatePolicy {
            pattern: pattern.into(),
            settings: settings.map(stated).transpose()?,
        };
        self.act(&act, dry_run, caller).await
    }

    /// Does an act, logs it, and returns once it is durable; or says what it would do.
    pub(super) async fn act(&self, act: &Act, dry_run: bool, caller: Caller) -> Result<api::Acted, Problem> {
        let core = &self.shared.core;
        let answer = |acted: &crate::port::Acted| api::Acted {
            count: acted.count,
            bytes: acted.bytes,
            held_count: acted.held_count,
            skipped_count: acted.skipped_count,
            dry_run,
            next: acted.next.map(|from| api::Next { from, until: from }),
        };
        if dry_run {
            return Ok(answer(&core.preview(act)?));
        }
        let done = core.act(act);
        log(act, &done, caller);
        let done = done?;
        core.wait_durable(done.gate).await;
        Ok(answer(&done))
    }

    /// Whether a queue may have this name: one that a SEND could carry.
    fn check_name(&self, name: &str) -> Result<(), Problem> {
        let bytes_max = self.shared.session.get().limits.header_line_bytes_max;
        let line_bytes = "destination:/queue/".len() + name.len();
        if name.is_empty() || name.contains('\0') || line_bytes > bytes_max {
            return Err(Problem::bad(
                "to must be the name of a queue: not empty, without NUL, and short enough for a header line",
            ));
        }
        Ok(())
    }
}

impl Chosen {
    fn add(&mut self, entry: &EntryView, verb: Verb<'_>) {
        if verb == Verb::Purge {
            self.sequences.push(entry.sequence);
        } else if entry.leased {
            self.held_count += 1;
        } else if verb == Verb::Requeue && entry.origin.is_none() {
            self.skipped_count += 1;
        } else {
            self.sequences.push(entry.sequence);
        }
    }
}

/// Reads settings as they are written in the configuration.
fn stated(written: &BTreeMap<String, Value>) -> Result<Settings, Problem> {
    let mut settings = Settings::default();
    for (name, value) in written {
        let key = SettingKey::named(name).ok_or_else(|| {
            let names: Vec<_> = SETTINGS.iter().map(|key| key.name).collect();
            Problem::bad(format!(
                "{name:?} is no setting of a policy; they are {}",
                names.join(", ")
            ))
        })?;
        let setting = match value {
            Value::Number(number) => number.as_u64().map(Setting::Number),
            Value::Bool(flag) => Some(Setting::Flag(*flag)),
            Value::String(text) => Some(Setting::Text(text.as_str().into())),
            _ => None,
        };
        if !setting.is_some_and(|setting| settings.state(key, setting)) {
            return Err(Problem::bad(format!(
                "{name} takes {}, not {value}",
                key.allowed()
            )));
        }
    }
    Ok(settings)
}

/// NAME=VALUE of each.
fn named(settings: &Settings) -> String {
    let named = settings
        .iter()
        .map(|(key, value)| format!("{}={}", key.name, api::setting_json(value)));
    named.collect::<Vec<_>>().join(" ")
}

/// Who did what to which, and what came of it.
fn log(act: &Act, done: &Result<crate::port::Acted, Refusal>, caller: Caller) {
    let (what, queue, to) = match act {
        Act::Purge { queue, .. } => ("purge", queue.as_str(), None),
        Act::Delete { queue, .. } => ("delete", queue.as_str(), None),
        Act::Pause { queue } => ("pause", queue.as_str(), None),
        Act::Resume { queue } => ("resume", queue.as_str(), None),
        Act::Move { from, to, .. } => ("move", from.as_str(), Some(to.as_str())),
        Act::Copy { from, to, .. } => ("copy", from.as_str(), Some(to.as_str())),
        Act::Requeue { queue, .. } => ("requeue", queue.as_str(), None),
        Act::StatePolicy { pattern, settings } => {
            let act = if settings.is_some() {
                "policy set"
            } else {
                "policy delete"
            };
            tracing::info!(
                act,
                ?pattern,
                settings = settings.as_ref().map(named),
                queue_count = done.as_ref().ok().map(|done| done.count),
                refused = done.as_ref().err().map(|refusal| refusal.code()),
                uid = caller.uid,
                pid = caller.pid,
                "operator"
            );
            return;
        }
        Act::Disconnect { session } => {
            let session = session.0;
            match done {
                Ok(_) => tracing::info!(
                    act = "disconnect",
                    session,
                    uid = caller.uid,
                    pid = caller.pid,
                    "operator"
                ),
                Err(refusal) => tracing::info!(
                    act = "disconnect",
                    session,
                    uid = caller.uid,
                    pid = caller.pid,
                    refused = refusal.code(),
                    "operator"
                ),
            }
            return;
        }
    };
    match done {
        Ok(acted) => tracing::info!(
            act = what,
            queue = ?queue,
            to = to.map(tracing::field::debug),
            count = acted.count,
            bytes = acted.bytes,
            seq = acted.gate.0,
            uid = caller.uid,
            pid = caller.pid,
            "operator"
        ),
        Err(refusal) => tracing::info!(
            act = what,
            queue = ?queue,
            to = to.map(tracing::field::debug),
            refused = refusal.code(),
            uid = caller.uid,
            pid = caller.pid,
            "operator"
        ),
    }
}
