use std::path::{Path, PathBuf};

use crate::{
    calls::{calls, write},
    cluster::Cluster,
    support::{Apps, Program, wait_until},
};

/// Each is served by the node with its number and by the one after it; the one after that calls it.
const APPS: [&str; 3] = ["north", "west", "southeast"];

/// The version before this one.
pub(crate) fn previous() -> Program {
    let lines = include_str!("PREVIOUS").lines();
    let commit = lines.map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap();
    // It is beside `debug`, where cargo puts what it builds for tests.
    let target = Path::new(env!("CARGO_BIN_EXE_fnmesh")).ancestors().nth(2).unwrap();
    let path = target.join("previous").join(commit).join("fnmesh");
    let program = Program::at(path.clone());
    for file in [path, program.extension()] {
        assert!(file.is_file(), "{} is missing: `make previous` builds it, once", file.display());
    }
    program
}

/// What this node of three does not serve, and both others do.
pub(crate) fn foreign(node: usize) -> &'static str {
    APPS[(node + 1) % 3]
}

/// A mesh of three nodes, each of which serves two apps and calls the third.
pub(crate) struct Fleet {
    pub(crate) cluster: Cluster,
    apps: Apps,
}

impl Fleet {
    /// Nodes of these builds. The first one makes the mesh, and the tokens that the others join with.
    pub(crate) fn of(programs: [&Program; 3]) -> Self {
        let apps = Apps::new(&[]);
        APPS.iter().for_each(|app| write(&apps, app));
        let cluster = Cluster::of(programs[0], &directories(&apps, 0));
        let mut fleet = Self { cluster, apps };
        for (index, program) in programs.iter().enumerate().skip(1) {
            fleet.cluster.join_of(program, &directories(&fleet.apps, index));
        }
        fleet.wait_for_routes();
        fleet
    }

    /// Stops a node and starts it again as this build, with its data and its addresses; all nodes know when it is back.
    pub(crate) fn replace(&mut self, index: usize, program: &Program) {
        self.cluster.replace(index, program, &directories(&self.apps, index));
        self.wait_for_routes();
    }

    /// Does every call at every node, and calls until every other node has answered some.
    pub(crate) fn check(&self) {
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            let (app, hosts) = (foreign(index), [(index + 1) % 3, (index + 2) % 3]);
            let before = hosts.map(|host| self.served(host, app));
            calls().iter().for_each(|call| call.check(&node.url, app));
            let has_each_served = || {
                calls()[0].check(&node.url, app);
                hosts.iter().zip(before).all(|(host, before)| self.served(*host, app) > before)
            };
            wait_until(has_each_served, || format!("calls of {app} from {index} on each of {hosts:?}"));
        }
    }

    /// How many calls of an app a node has run. All of them come from the node that does not serve it.
    fn served(&self, node: usize, app: &str) -> u64 {
        let apps = self.cluster.nodes[node].get("/_/apps");
        let pools =
            apps.as_array().unwrap().iter().filter(|it| it["name"] == app).flat_map(|it| it["pools"].as_array());
        let instances = pools.flatten().flat_map(|pool| pool["instances"].as_array()).flatten();
        instances.map(|instance| instance["calls"].as_u64().unwrap()).sum()
    }

    fn wait_for_routes(&self) {
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            APPS.iter().for_each(|app| self.cluster.wait_for_routes(index, app, 2));
            let routes = node.get("/_/routes");
            let routes = routes.as_array().unwrap();
            assert_eq!(routes.len(), APPS.len(), "an app is more than one to node {index}: {routes:?}");
        }
    }
}

fn directories(apps: &Apps, node: usize) -> Vec<PathBuf> {
    [APPS[node], APPS[(node + 2) % 3]].map(|app| apps.path(app)).into()
}
