// Package failpoint names the moments at which a test may want a process to fail: between a log write and its sync, before
// an answer, after a commit.
//
// Without the build tag `failpoint` every call is empty and costs nothing. With it a test gives a point an action. Points are
// named `<service>.<moment>` and are listed where they are hit. It is the one package with state of its own, because a point
// is hit deep inside code that should not know of tests.
package failpoint
