package qube

import (
	"fmt"
	"strconv"
)

// Addresses (spec/platform.md §4.1).

// networked tells whether a qube has a network card.
func networked(s Source) bool {
	return s.Property("netvm") != "" || s.Property("provides_network") == "True"
}

// number is what the qube's address is made from, with the address's second
// part: ordinary qubes and disposables have networks of their own.
func number(s Source) (second, n int, ok bool) {
	second, name := 137, "qid"
	if Class(s.Fact("klass")) == DispVM {
		second, name = 138, "dispid"
	}
	n, err := strconv.Atoi(s.Property(name))
	return second, n, err == nil
}

func ip4(s Source) (string, bool) {
	second, n, ok := number(s)
	if !ok || !networked(s) {
		return "", true
	}
	third, fourth := n>>8, n&255
	if n >= 255 {
		// No address ends in 0 or 255.
		third, fourth = (n-1)/254, (n-1)%254+1
	}
	return fmt.Sprintf("10.%d.%d.%d", second, third, fourth), true
}

func ip6(s Source) (string, bool) {
	second, n, ok := number(s)
	on, _ := FeatureWithNetVM(s, "ipv6")
	if !ok || on == "" || !networked(s) {
		return "", true
	}
	return fmt.Sprintf("fd09:24ef:4179::a%x:%x", second, n), true
}

// fakeFeatures are what visible addresses may come from: the qube's feature or
// its template's.
func fakeOr(feature, property string) []Follow {
	return []Follow{{Itself, FeatureKey(feature)}, {OfTemplate, FeatureKey(feature)}, {Itself, property}}
}

// visible is an address that the qube is shown: a pretended one, or the real
// one.
func visible(feature, otherwise string) func(Source) (string, bool) {
	return func(s Source) (string, bool) {
		if v, _ := FeatureWithTemplate(s, feature); v != "" {
			return v, true
		}
		switch {
		case otherwise == "netvm.gateway":
			return ofNetVM("gateway")(s)
		case otherwise != "netmask":
			return s.Property(otherwise), true
		case networked(s):
			return "255.255.255.255", true
		}
		return "", true
	}
}

// ofNetVM is a property of the qube's netvm; empty without one.
func ofNetVM(name string) func(Source) (string, bool) {
	return func(s Source) (string, bool) {
		if n := s.Refer("netvm"); n != nil {
			return n.Property(name), true
		}
		return "", true
	}
}

// asRouter is an own address if the qube gives network to others.
func asRouter(name string) func(Source) (string, bool) {
	return func(s Source) (string, bool) {
		if s.Property("provides_network") != "True" {
			return "", true
		}
		return s.Property(name), true
	}
}

func nameServers(s Source) (string, bool) {
	if !networked(s) {
		return "", true
	}
	return "10.139.1.1 10.139.1.2", true
}
