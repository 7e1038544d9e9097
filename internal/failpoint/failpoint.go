// Package failpoint names the moments at which a test may want a process to fail: between a log write and its sync, before
// an answer, after a commit.
//
// In the laboratory, where a test is another process, the agent is built with the tag and looks into Folder: a file named after a
// point stops it there. It gives the file the ending .hit, and goes on when that file has gone, or is killed.
//
// Without the build tag `failpoint` every call is empty and costs nothing. With it a test gives a point an action. Points are
// named `<service>.<moment>` and are listed where they are hit. It is the one package with state of its own, because a point
// is hit deep inside code that should not know of tests.
package failpoint

// Folder is where a process that is built with the tag looks for the points that it is to stop at.
const Folder = "/run/shoal-failpoints"
