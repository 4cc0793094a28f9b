use std::time::Duration;

use anstyle::Style;
use bytesize::ByteSize;
use serde_json::Value;

use super::{
    OK, Stop,
    client::Client,
    listing::{App, Instance, Listing, Pool},
    options::Ps,
};
use crate::{
    table::{self, Row},
    terminal::{self, ERROR, GOOD, NAME, WARNING},
};

pub(super) async fn ps(options: Ps) -> Result<u8, Stop> {
    let client = Client::new(&options.query.target.node)?;
    let listing = Listing::fetch(&client).await?;
    let wanted = |app: &str| options.app.as_deref().is_none_or(|name| name == app);
    let apps: Vec<_> = listing.apps.iter().filter(|app| wanted(&app.name)).collect();
    if let (Some(name), true) = (&options.app, apps.is_empty()) {
        return Err(Stop::failed(format!("{} has no app {name:?}; `fnmesh ls` lists what it has", client.url())));
    }
    if options.query.json {
        terminal::print(&format!("{}\n", json(&listing, wanted)?));
    } else if apps.iter().all(|app| app.pools.is_empty()) {
        terminal::print(&format!("{} has no instance; `fnmesh ls` says which apps it has\n", client.url()));
    } else {
        terminal::print(&describe(&apps));
    }
    Ok(OK)
}

/// The pools of the apps that are wanted, as the node sent them, each with its app's name.
fn json(listing: &Listing, wanted: impl Fn(&str) -> bool) -> Result<Value, Stop> {
    let apps: Vec<Value> = serde_json::from_str(listing.json.get()).map_err(|error| Stop::failed(error.to_string()))?;
    let mut pools = Vec::new();
    for app in apps.iter().filter(|app| app["name"].as_str().is_some_and(&wanted)) {
        for pool in app["pools"].as_array().into_iter().flatten() {
            let mut pool = pool.clone();
            pool["app"] = app["name"].clone();
            pools.push(pool);
        }
    }
    Ok(Value::Array(pools))
}

fn describe(apps: &[&App]) -> String {
    let pools =
        || apps.iter().flat_map(|app| app.pools.iter().map(|pool| (format!("{}/{}", app.name, pool.language), pool)));
    let header = ["POOL", "INSTANCES", "BOUNDS", "IN FLIGHT", "QUEUE", "START", "COLD STARTS", "LOST", "STATE"];
    let mut out = table::render(&header, pools().map(|(name, pool)| pool_row(name, pool)).collect());
    let instances: Vec<_> = pools()
        .flat_map(|(name, pool)| {
            let instances = pool.instances.iter().map(|it| instance_row(&name, it));
            instances.chain(pool.standby.map(|pid| standby_row(&name, pid))).collect::<Vec<_>>()
        })
        .collect();
    if !instances.is_empty() {
        out += "\n";
        out += &table::render(&["INSTANCE OF", "PID", "AGE", "CALLS", "IN FLIGHT", "MEMORY", "STATE"], instances);
    }
    for (name, pool) in pools() {
        if let Some(failure) = &pool.failure {
            out += &format!("\n{ERROR}{name}:{ERROR:#} {failure}\n");
        }
    }
    out
}

fn pool_row(name: String, pool: &Pool) -> Row {
    let ready = pool.instances.iter().filter(|it| it.state == "ready").count();
    let instances = match (pool.starting, pool.want) {
        (0, want) if want > ready => format!("{ready} of {want}"),
        (0, _) => ready.to_string(),
        (starting, _) => format!("{ready} + {starting} starting"),
    };
    let cold_starts = match pool.cold_starts {
        0 => "0".to_owned(),
        calls => format!("{calls}, {:.0} ms", pool.cold_start_total_ms / calls as f64),
    };
    let (state, last) = state(pool);
    let cells = vec![
        name,
        instances,
        format!("{} to {}", pool.min_instances, pool.max_instances),
        pool.in_flight.to_string(),
        format!("{} of {}", pool.queued, pool.max_queued),
        pool.start_ms.map_or_else(String::new, |ms| format!("{ms:.0} ms")),
        cold_starts,
        pool.lost.to_string(),
        state,
    ];
    Row { cells, first: NAME, last }
}

fn state(pool: &Pool) -> (String, Style) {
    match (pool.circuit.as_str(), pool.retry_after_ms) {
        ("closed", _) => ("ok".to_owned(), GOOD),
        ("open", Some(ms)) => {
            (format!("refuses calls for {:.1} s after {} failures", ms as f64 / 1e3, pool.failures), ERROR)
        }
        _ => (format!("tried again after {} failures", pool.failures), WARNING),
    }
}

fn instance_row(name: &str, instance: &Instance) -> Row {
    let memory = instance.memory_bytes.map_or_else(String::new, |bytes| ByteSize(bytes).display().iec().to_string());
    let cells = vec![
        name.to_owned(),
        instance.pid.to_string(),
        humantime::format_duration(Duration::from_secs(instance.age_s)).to_string(),
        instance.calls.to_string(),
        instance.in_flight.to_string(),
        memory,
        instance.state.clone(),
    ];
    Row { cells, first: NAME, last: if instance.state == "ready" { GOOD } else { WARNING } }
}

fn standby_row(name: &str, pid: u32) -> Row {
    let mut cells = vec![String::new(); 7];
    cells[0] = name.to_owned();
    cells[1] = pid.to_string();
    cells[6] = "standby".to_owned();
    Row { cells, first: NAME, last: Style::new() }
}

/// A pool as a node describes it.
#[cfg(test)]
pub(super) fn sample() -> Value {
    let pool = fnmesh_invoke::PoolStatus {
        instances: vec![fnmesh_invoke::InstanceStatus {
            pid: 7,
            state: fnmesh_invoke::InstanceState::Ready,
            in_flight: 3,
            calls: 1234,
            age_s: 3_725,
            memory_bytes: Some(12 << 20),
        }],
        standby: Some(4242),
        started: 1,
        want: 2,
        max_instances: 4,
        queued: 2,
        max_queued: 1024,
        lost: 9,
        start_ms: Some(61.2),
        cold_starts: 2,
        cold_start_total_ms: 150.2,
        ..fnmesh_invoke::PoolStatus::empty(fnmesh_invoke::Language::Node)
    };
    serde_json::to_value(pool).expect("a status is JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listing(pool: Value) -> Listing {
        let app = |name: &str| json!({"name": name, "directory": "/", "version": "", "state": "ready", "pools": [pool], "functions": []});
        let json = json!([app("shop"), app("other")]).to_string();
        Listing { apps: serde_json::from_str(&json).unwrap(), json: serde_json::from_str(&json).unwrap() }
    }

    fn plain(pool: Value) -> String {
        let listing = listing(pool);
        anstream::adapter::strip_str(&describe(&listing.apps.iter().collect::<Vec<_>>())).to_string()
    }

    #[test]
    fn pools_and_instances_have_a_line_each() {
        let text = plain(sample());
        for part in
            ["shop/node   1 of 2", "0 to 4", "2 of 1024", "61 ms", "2, 75 ms", "1h 2m 5s", "1234", "12.0 MiB", "4242"]
        {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("shop/node")).count(), 3);
    }

    #[test]
    fn failing_pool_says_why() {
        let mut pool = sample();
        pool["circuit"] = "open".into();
        pool["failures"] = 4.into();
        pool["retry_after_ms"] = 800.into();
        pool["failure"] = json!({"type": "ImportError", "message": "no module", "stack": ""});
        let text = plain(pool);
        for part in ["refuses calls for 0.8 s after 4 failures", "shop/node: ImportError: no module"] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn json_has_the_pools_of_the_app_with_its_name() {
        let pools = json(&listing(sample()), |app| app == "other").unwrap();
        let pools = pools.as_array().unwrap();
        assert_eq!((pools.len(), &pools[0]["app"], &pools[0]["instances"][0]["pid"]), (1, &json!("other"), &json!(7)));
    }
}
