//! A cluster in memory: a `StatefulSet` controller, volumes, and nodes that hold partitions, install rings, copy and
//! drop as real ones do. The planner runs against it; what must never happen is checked at each action.
#![allow(dead_code)]

pub mod node;

use annulus_operator::plan::{
    Action, Answer, Desired, Objects, Observation, Observed, Plan, Pod, Scaling, StoredRing, Volume, Workload,
    plan,
};
use dynamo::moves::Pace;
use dynamo::ring::{MemberState, Quorums, Ring};
use dynamo::token::{HashKey, PartitionCount};
use node::FakeNode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

pub const PARTITIONS: u32 = 32;

/// A volume, and the node's data on it.
pub struct FakeVolume {
    pub uid: String,
    pub node: FakeNode,
    /// Its Node is gone for good, and so is what was on it.
    pub stranded: bool,
}

/// A running pod.
pub struct FakePod {
    pub uid: String,
    pub revision: String,
    pub silent: bool,
    /// Seconds without a Node.
    pub unscheduled: Option<u64>,
}

pub struct World {
    pub desired: Desired,
    pub workload: Option<Workload>,
    pub objects_current: bool,
    pub revision: u32,
    pub pods: BTreeMap<u32, FakePod>,
    pub volumes: BTreeMap<u32, FakeVolume>,
    pub config_map: Option<Result<Ring, ()>>,
    pub config_map_version: u64,
    pub status_epoch: u64,
    /// Nodes whose volume was destroyed.
    pub destroyed: BTreeSet<Uuid>,
    /// Size of every disk; zero: the nodes do not say.
    pub disk_bytes: u64,
    pub rng: StdRng,
    pub actions: Vec<&'static str>,
    serial: u64,
}

impl World {
    pub fn new(replicas: u32, seed: u64) -> Self {
        let quorums = Quorums { n: 3, r: 2, w: 2, sloppy: true };
        Self {
            desired: desired(replicas, quorums),
            workload: None,
            objects_current: false,
            revision: 1,
            pods: BTreeMap::new(),
            volumes: BTreeMap::new(),
            config_map: None,
            config_map_version: 1,
            status_epoch: 0,
            destroyed: BTreeSet::new(),
            disk_bytes: 0,
            rng: StdRng::seed_from_u64(seed),
            actions: Vec::new(),
            serial: 0,
        }
    }

    fn next_uid(&mut self) -> String {
        self.serial += 1;
        format!("uid-{}", self.serial)
    }

    pub fn ring(&self) -> Option<&Ring> {
        self.config_map.as_ref()?.as_ref().ok()
    }

    /// What the operator would observe now.
    pub fn observe(&self) -> Observed {
        let certain = match &self.config_map {
            Some(Ok(ring)) if ring.epoch >= self.status_epoch => ring.epoch,
            _ => 0,
        };
        let pods = self.pods.iter().map(|(&ordinal, pod)| self.pod(ordinal, pod, certain)).collect();
        let volumes = self.volumes.iter().map(|(&ordinal, volume)| Volume {
            name: format!("data-demo-{ordinal}"),
            ordinal,
            uid: volume.uid.clone(),
            bound: true,
            terminating: false,
            cluster: Some(self.desired.cluster),
            bytes: self.desired.volume_bytes,
            stranded: volume.stranded.then(|| "its Node is gone".to_owned()),
        });
        let resource_version = self.config_map_version.to_string();
        Observed {
            objects: if self.objects_current { Objects::Current } else { Objects::Differ },
            workload: self.workload.clone(),
            pods,
            volumes: volumes.collect(),
            stored: match &self.config_map {
                None => StoredRing::Missing,
                Some(Err(())) => StoredRing::Damaged { resource_version, why: "test".to_owned() },
                Some(Ok(ring)) => StoredRing::Held { ring: Box::new(ring.clone()), resource_version },
            },
            known_epoch: self.status_epoch,
            published_just_now: false,
        }
    }

    fn pod(&self, ordinal: u32, pod: &FakePod, certain: u64) -> Pod {
        let node = &self.volumes[&ordinal].node;
        let mut status = node.status(self.desired.cluster);
        status.disk_bytes_total = self.disk_bytes;
        status.disk_bytes_free = self.disk_bytes.saturating_sub(status.bytes);
        let held = node.ring.clone().filter(|ring| ring.epoch > certain).map(Box::new);
        let answer = Answer { incarnation: node.incarnation, cluster: Some(self.desired.cluster), status, held };
        Pod {
            name: self.desired.pod(ordinal),
            ordinal,
            uid: pod.uid.clone(),
            ip: None,
            ready: !pod.silent,
            running: pod.unscheduled.is_none(),
            terminating: false,
            unscheduled_seconds: pod.unscheduled,
            revision: pod.revision.clone(),
            zone: None,
            node: match pod.silent {
                true => Observation::NoAnswer("silent".to_owned()),
                false => Observation::Answer(Box::new(answer)),
            },
        }
    }

    /// One round of the operator, then one step of everything else.
    pub fn tick(&mut self) -> Plan {
        let observed = self.observe();
        let mut key = [0; 16];
        self.rng.fill(&mut key);
        let plan = plan(&self.desired, &observed, HashKey(key));
        if let Some(action) = plan.action.clone() {
            self.check(&action);
            self.actions.push(action.code());
            self.perform(action);
            // The operator may die here: nothing but objects is remembered, and the status lags one round behind.
        } else {
            self.status_epoch = self.ring().map_or(self.status_epoch, |ring| ring.epoch);
        }
        if self.rng.random_bool(0.8) {
            self.status_epoch = self.ring().map_or(self.status_epoch, |ring| ring.epoch);
        }
        let lagging: Vec<String> = plan.lagging.clone();
        self.hand_over(&|name| lagging.iter().any(|lagging| lagging == name));
        self.stateful_set_controller();
        self.pods.values_mut().filter_map(|pod| pod.unscheduled.as_mut()).for_each(|seconds| *seconds += 1);
        self.nodes();
        self.check_data();
        plan
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::ApplyObjects { replicas, proven } => {
                self.objects_current = true;
                self.write_workload(replicas, proven);
            }
            Action::ScaleWorkload { replicas, proven, .. } => self.write_workload(replicas, proven),
            Action::CreateRing(ring) => {
                self.volumes.values_mut().for_each(|volume| volume.node.begin(&ring));
                self.config_map = Some(Ok(*ring));
                self.config_map_version += 1;
                self.hand_over(&|_| true);
            }
            Action::RestoreRing { ring, .. } | Action::PublishRing { ring, .. } => {
                self.config_map = Some(Ok(*ring));
                self.config_map_version += 1;
                self.hand_over(&|_| true);
            }
            Action::DeleteVolume { name, uid } => {
                let ordinal: u32 = name.rsplit('-').next().unwrap().parse().unwrap();
                assert!(!self.pods.contains_key(&ordinal), "the volume of a running pod is deleted");
                let volume = self.volumes.remove(&ordinal).unwrap();
                assert_eq!(volume.uid, uid);
                assert!(volume.node.holds.is_empty(), "a volume with data is deleted");
            }
            Action::ReplaceVolume { pod, .. } => {
                let ordinal = self.desired.ordinal(&pod).unwrap();
                self.pods.remove(&ordinal);
                self.volumes.remove(&ordinal);
            }
            Action::GrowVolume { .. } => {}
            Action::RestartPod { name, .. } => {
                let ordinal = self.desired.ordinal(&name).unwrap();
                self.pods.remove(&ordinal);
            }
        }
    }

    fn write_workload(&mut self, replicas: u32, proven: BTreeSet<Uuid>) {
        let version = self.workload.as_ref().map_or(0, |w| w.resource_version.parse::<u64>().unwrap()) + 1;
        self.workload = Some(Workload {
            replicas,
            replicas_written: Some(replicas),
            revision: format!("r{}", self.revision),
            proven,
            resource_version: version.to_string(),
        });
    }

    /// Everything that must never happen.
    fn check(&self, action: &Action) {
        match action {
            Action::CreateRing(_) => {
                let holds = self.volumes.values().any(|volume| volume.node.ring.is_some());
                assert!(!holds, "a ring is made although a node holds one");
                assert_eq!(self.status_epoch, 0, "a ring is made for a cluster that had one");
            }
            Action::PublishRing { ring, .. } => {
                assert_eq!(ring.epoch, self.ring().unwrap().epoch + 1);
            }
            Action::RestoreRing { ring, .. } => {
                let alive = self.volumes.values().filter(|volume| !volume.stranded);
                let newest = alive.filter_map(|v| v.node.ring.as_ref()).map(|r| r.epoch).max();
                assert!(newest.is_none_or(|newest| ring.epoch >= newest), "an older ring is restored");
            }
            Action::ScaleWorkload { replicas, why, .. } => {
                let now = self.workload.as_ref().unwrap().replicas;
                if matches!(why, Scaling::Grow) {
                    assert!(*replicas > now);
                }
                for ordinal in *replicas..now {
                    self.check_dispensable(ordinal);
                }
            }
            Action::ApplyObjects { replicas, .. } => {
                let now = self.workload.as_ref().map_or(0, |workload| workload.replicas);
                assert!(*replicas >= now, "objects are written with fewer replicas");
            }
            Action::RestartPod { name, .. } => {
                // A pod that does not even run serves nobody; it may be made anew at any time.
                let runs = self.pods[&self.desired.ordinal(name).unwrap()].unscheduled.is_none();
                let moving = self.ring().is_some_and(|ring| ring.target.is_some());
                assert!(!(runs && moving), "a restart while partitions move");
            }
            Action::ReplaceVolume { pod, .. } => {
                let ordinal = self.desired.ordinal(pod).unwrap();
                assert!(self.volumes[&ordinal].stranded, "a volume that can be reached is given up");
                let waited = self.pods[&ordinal].unscheduled.unwrap();
                assert!(waited >= self.desired.replace_after_seconds, "a volume is given up too early");
            }
            Action::DeleteVolume { .. } | Action::GrowVolume { .. } => {}
        }
    }

    fn check_dispensable(&self, ordinal: u32) {
        assert!(ordinal >= self.desired.replicas, "a wanted pod is let go");
        let name = self.desired.pod(ordinal);
        let ring = self.ring().expect("no pod is let go without a ring");
        for member in ring.members.iter().filter(|member| member.name == name) {
            if self.destroyed.contains(&member.incarnation) {
                continue;
            }
            assert_eq!(member.state, MemberState::Leaving);
            assert_eq!(ring.listed(member.index), 0, "a listed member is let go");
            assert!(!self.pods[&ordinal].silent, "a silent member is let go");
            let node = &self.volumes[&ordinal].node;
            assert!(node.holds.is_empty() && node.hints == 0, "a member that holds data is let go");
        }
    }

    /// Every member of an effective list holds the partition, unless its volume was destroyed.
    fn check_data(&self) {
        let Some(ring) = self.ring() else { return };
        for (partition, placement) in (0..).zip(&ring.partitions) {
            for index in &placement.preference {
                let member = ring.member(*index).unwrap();
                if self.destroyed.contains(&member.incarnation) {
                    continue;
                }
                let holder = self.volumes.values().find(|v| v.node.incarnation == member.incarnation);
                let holds = holder.is_some_and(|volume| node::holds(&volume.node.holds, ring, partition));
                assert!(holds, "{} is listed for {partition} and does not hold it", member.name);
            }
        }
    }

    fn hand_over(&mut self, to: &dyn Fn(&str) -> bool) {
        let Some(ring) = self.ring().cloned() else {
            return;
        };
        for (&ordinal, pod) in &self.pods {
            if to(&self.desired.pod(ordinal)) && !pod.silent && self.rng.random_bool(0.8) {
                self.volumes.get_mut(&ordinal).unwrap().node.install(&ring);
            }
        }
    }

    fn stateful_set_controller(&mut self) {
        let Some(workload) = self.workload.clone() else {
            return;
        };
        self.pods.retain(|ordinal, _| *ordinal < workload.replicas);
        for ordinal in 0..workload.replicas {
            if self.pods.contains_key(&ordinal) {
                continue;
            }
            let (uid, volume_uid) = (self.next_uid(), self.next_uid());
            let incarnation = Uuid::from_u128(self.rng.random());
            self.volumes.entry(ordinal).or_insert_with(|| FakeVolume {
                uid: volume_uid,
                node: FakeNode::new(incarnation),
                stranded: false,
            });
            let stranded = self.volumes[&ordinal].stranded;
            let unscheduled = stranded.then_some(0);
            let revision = workload.revision.clone();
            self.pods.insert(ordinal, FakePod { uid, revision, silent: stranded, unscheduled });
        }
    }

    /// Nodes copy, drop, deliver hints and gossip.
    fn nodes(&mut self) {
        let up: Vec<u32> = self.pods.iter().filter(|(_, pod)| !pod.silent).map(|(ordinal, _)| *ordinal).collect();
        let newest = up.iter().filter_map(|o| self.volumes[o].node.ring.clone()).max_by_key(|r| r.epoch);
        let sources: BTreeMap<Uuid, BTreeSet<u32>> = up
            .iter()
            .map(|ordinal| (self.volumes[ordinal].node.incarnation, self.volumes[ordinal].node.holds.clone()))
            .collect();
        for ordinal in up {
            let node = &mut self.volumes.get_mut(&ordinal).unwrap().node;
            if let Some(newest) = &newest
                && self.rng.random_bool(0.3)
            {
                node.install(newest);
            }
            node.work(&sources, &mut self.rng);
        }
    }

    /// Runs until nothing is left to do; panics if that takes too long.
    pub fn settle(&mut self) {
        for _ in 0..600 {
            let plan = self.tick();
            if plan.action.is_none() && plan.waiting.is_empty() && self.is_settled() {
                return;
            }
        }
        let plan = self.tick();
        panic!(
            "did not settle: {:?} {:?}\nactions {:?}",
            plan.action.map(|a| a.code()),
            plan.waiting,
            self.actions
        );
    }

    fn is_settled(&self) -> bool {
        let replicas = self.desired.replicas;
        self.ring().is_some_and(|ring| {
            ring.members.len() == replicas as usize
                && ring.target.is_none()
                && ring.members.iter().all(|member| member.state == MemberState::Active)
                && ring.partitions.iter().all(|placement| placement.also.is_none())
        }) && self.workload.as_ref().is_some_and(|workload| workload.replicas == replicas)
    }

    /// A Node goes for good, and the volume on it with it; the pod is made anew and finds no Node that reaches it.
    pub fn lose_host(&mut self, ordinal: u32) {
        let Some(volume) = self.volumes.get_mut(&ordinal) else {
            return;
        };
        volume.stranded = true;
        self.destroyed.insert(volume.node.incarnation);
        self.pods.remove(&ordinal);
    }

    pub fn lose_volume(&mut self, ordinal: u32) {
        let Some(volume) = self.volumes.remove(&ordinal) else {
            return;
        };
        self.destroyed.insert(volume.node.incarnation);
        self.pods.remove(&ordinal);
    }
}

pub fn desired(replicas: u32, quorums: Quorums) -> Desired {
    Desired {
        cluster: Uuid::from_u128(7),
        name: "demo".to_owned(),
        namespace: "default".to_owned(),
        replicas,
        partitions: PartitionCount::new(PARTITIONS).unwrap(),
        quorums,
        pace: Pace { parallel_moves: 8 },
        zones: false,
        zone_weights: BTreeMap::new(),
        replace_after_seconds: 20,
        delete_on_scale_in: false,
        volume_bytes: 1 << 30,
        paused: false,
    }
}
