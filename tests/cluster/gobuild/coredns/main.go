// Command coredns is CoreDNS with the four plugins that a cluster's DNS needs here.
//
// Upstream's own main links some fifty plugins with the SDKs of four clouds; this one builds in under a minute.
// There is no forward plugin: pods of the test cluster have no resolver outside it to forward to.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func init() {
	dnsserver.Directives = []string{"errors", "health", "cache", "kubernetes"}
}

func main() {
	coremain.Run()
}
