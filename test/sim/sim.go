// Package sim is the whole control plane in one test: the real processes, gRPC, TLS and Raft on a simulated network and
// disk, in virtual time. Hours of a cluster's life pass in seconds, and faults come when a test wants them.
//
// It owns how the processes are put on simulated hosts (Cluster), what a person does (Operator), the faults of a seed and
// what must hold under them. A hollow node runs the real agent and meshproxy over a fake executor and fake tables. What
// only a real kernel, containerd or disk can show is the laboratory's. A test runs inside a testing/synctest bubble.
package sim
