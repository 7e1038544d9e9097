package raftnode

import (
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/store/storetest"
)

func newDisk(seed uint64) disk { return storetest.NewDisk(run.NewRand(seed)) }
