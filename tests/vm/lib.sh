# What scenarios have in common, inside the VM. Hosts are containers with an init of their own, and
# so with real units, around the network namespaces n1, n2, n3; each has VLAN 169 on an
# active-backup bond over two ports of one switch, the namespace `sw`.
# shellcheck shell=bash
set -u

# How many times longer than elsewhere a wait may last on this machine: tests/vm/run says.
PATIENCE=$(cat patience)

VIP=10.24.69.222
VLAN=bond0.169
HOSTS=/run/hosts

passed=0
failed=0

say() { printf '%7s  %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }

# holds NAME COMMAND...: whether the command succeeds; its output is shown when it does not.
holds() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        say "ok      $name"
    else
        failed=$((failed + 1))
        say "FAILED  $name"
        printf '%s\n' "$output"
    fi
}

# eventually SECONDS COMMAND...: whether the command succeeds within that time, times PATIENCE.
eventually() {
    local end=$((SECONDS + $1 * PATIENCE))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

# Ends the scenario.
finish() {
    say "$passed hold, $failed do not"
    [ $failed -eq 0 ] && [ $passed -gt 0 ]
    exit
}

address() { echo "10.24.69.$((218 + ${1#n}))"; }

mac() { ip -n "$1" -json link show $VLAN | jq -r '.[0].address'; }

# The switch, and the hosts n1..nN with their network.
network() {
    modprobe -a bonding 8021q bridge veth
    ip netns add sw
    ip -n sw link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0
    ip -n sw link set br0 up
    local n port
    for n in $(seq "$1"); do
        ip netns add "n$n"
        ip -n "n$n" link set lo up
        ip -n "n$n" link add bond0 type bond mode active-backup miimon 100
        for port in 0 1; do
            ip -n "n$n" link add eth$port type veth peer name "p$n$port" netns sw
            ip -n "n$n" link set eth$port master bond0
            ip -n sw link set "p$n$port" master br0 up
            ip netns exec sw bridge vlan add dev "p$n$port" vid 169
        done
        ip -n "n$n" link set bond0 up
        ip -n "n$n" link add link bond0 name $VLAN type vlan id 169
        ip -n "n$n" link set $VLAN up
        ip -n "n$n" address add "$(address "n$n")/24" dev $VLAN
    done
}

# Boots hosts: a Debian of their own each, as this VM's is, of which nothing is kept.
boot() {
    local host of
    for host; do
        of=$HOSTS/$host
        mkdir -p "$of"
        mount -t tmpfs host "$of"
        mkdir "$of"/{upper,work,root}
        mount -t overlay host -o "lowerdir=/,upperdir=$of/upper,workdir=$of/work" "$of/root"
        echo "$host" >"$of/root/etc/hostname"
        printf '127.0.0.1 localhost\n%s %s\n' "$(address "$host")" "$host" >"$of/root/etc/hosts"
        : >"$of/root/etc/machine-id"
        ln -sf /dev/null "$of/root/etc/systemd/system/vm-agent.service"
        systemd-run --quiet --unit="host-$host" --property=Delegate=yes \
            systemd-nspawn --quiet --keep-unit --register=no --directory="$of/root" \
            --network-namespace-path="/run/netns/$host" --resolv-conf=off --timezone=off \
            --link-journal=no --capability=CAP_NET_ADMIN,CAP_NET_RAW --console=pipe --boot
    done
    for host; do
        eventually 400 is_up "$host" || {
            say "$host does not boot:"
            journalctl --no-pager --unit="host-$host"
            exit 1
        }
    done
}

is_up() {
    local nspawn state
    nspawn=$(systemctl show --property=MainPID --value "host-$1")
    pgrep --parent "$nspawn" >"$HOSTS/$1/init" &&
        state=$(on "$1" systemctl is-system-running 2>/dev/null)
    [ "$state" = running ] || [ "$state" = degraded ]
}

# on HOST COMMAND...
on() {
    nsenter --target "$(cat "$HOSTS/$1/init")" --all --root --wd -- "${@:2}"
}

# put HOST PATH: standard input becomes that file of the host.
put() { install -D -m 644 /dev/stdin "$HOSTS/$1/root$2"; }

# Far enough apart that a busy n2 is not overtaken by n3.
priority() { echo $((200 - 60 * ${1#n})); }

# example NAME: one of the package's configurations of keepalived.
example() {
    dpkg-deb --fsys-tarfile packages/*.deb |
        tar -xO "./usr/share/doc/vipherald/examples/keepalived/$1.conf"
}

# configure HOST [EDIT]: the example for a Kubernetes control plane, for this host, without its check
# of an API server; EDIT is one more of sed's.
configure() {
    local own=$1 others
    others=$(for n in n1 n2 n3; do [ $n = "$own" ] || address $n; done | xargs printf '        %s\\n')
    example kubernetes |
        sed -e '/^vrrp_script/,/^}/d' -e '/track_script {/,/}/d' \
            -e "s/priority 100/priority $(priority "$own")/" \
            -e "s/unicast_src_ip .*/unicast_src_ip $(address "$own")/" \
            -e "/unicast_peer {/,/}/{/10\./d}" -e "s/unicast_peer {/&\n$others/" -e "${2:-}" |
        put "$own" /etc/keepalived/keepalived.conf
}

holds_vip() { ip -n "$1" -json address show dev $VLAN | jq -e --arg vip $VIP \
    'any(.[].addr_info[]; .local == $vip)' >/dev/null; }

# What a host's kernel has in its table for the VIP.
entry() { ip -n "$1" neighbour show $VIP dev $VLAN; }

follows() { entry "$1" | grep -q "lladdr $(mac "$2") "; }

# SIGKILL to all of keepalived on a host, the child first: nobody is left to take the VIP away.
kill_keepalived() {
    on "$1" sh -c 'main=$(systemctl show --property=MainPID --value keepalived) &&
        kill -KILL $(pgrep --parent $main) $main'
}
