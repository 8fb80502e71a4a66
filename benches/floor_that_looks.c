/* The least that an announcer can do which looks first: subscribe to changes, find the VIP among
 * the kernel's addresses, ask for its interface's MAC, see that nothing has changed meanwhile, and
 * send one gratuitous ARP request.
 *
 *     floor_that_looks VIP
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static char buffer[32768];

static int fail(const char *what)
{
	perror(what);
	exit(1);
}

static int netlink(unsigned int groups)
{
	struct sockaddr_nl here = {.nl_family = AF_NETLINK, .nl_groups = groups};
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (void *)&here, sizeof here) < 0)
		fail("netlink");
	return fd;
}

static void ask(int fd, int type, int flags, void *body, size_t length)
{
	struct {
		struct nlmsghdr header;
		char body[sizeof(struct ifinfomsg)];
	} message = {{NLMSG_LENGTH(length), type, NLM_F_REQUEST | flags, 0, 0}, {0}};

	memcpy(message.body, body, length);
	if (send(fd, &message, message.header.nlmsg_len, 0) < 0)
		fail("netlink");
}

/* The value of an attribute of the message at `at`, whose own header has `header` octets. */
static void *attribute(struct nlmsghdr *at, size_t header, int type)
{
	struct rtattr *one = (void *)((char *)NLMSG_DATA(at) + NLMSG_ALIGN(header));
	int left = NLMSG_PAYLOAD(at, header);

	for (; RTA_OK(one, left); one = RTA_NEXT(one, left))
		if (one->rta_type == type)
			return RTA_DATA(one);
	return NULL;
}

/* The index of the interface that holds the VIP; 0, if none does. */
static int holder(int fd, const void *vip)
{
	struct ifaddrmsg all = {.ifa_family = AF_INET};
	int index = 0, over = 0;

	ask(fd, RTM_GETADDR, NLM_F_DUMP, &all, sizeof all);
	while (!over) {
		ssize_t length = recv(fd, buffer, sizeof buffer, 0);
		struct nlmsghdr *at = (void *)buffer;

		if (length <= 0)
			fail("addresses");
		for (; NLMSG_OK(at, length); at = NLMSG_NEXT(at, length)) {
			void *ip = attribute(at, sizeof all, IFA_LOCAL);

			over |= at->nlmsg_type == NLMSG_DONE;
			if (at->nlmsg_type == RTM_NEWADDR && ip && !memcmp(ip, vip, 4))
				index = ((struct ifaddrmsg *)NLMSG_DATA(at))->ifa_index;
		}
	}
	return index;
}

int main(int argc, char **argv)
{
	unsigned char arp[28] = {0, 1, 8, 0, 6, 4, 0, 1};
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETHERTYPE_ARP),
		.sll_halen = 6,
		.sll_addr = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	};
	struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
	int changes, kernel, port;
	void *mac;

	if (argc != 2 || inet_pton(AF_INET, argv[1], arp + 14) != 1) {
		fputs("usage: floor_that_looks VIP\n", stderr);
		return 2;
	}
	memcpy(arp + 24, arp + 14, 4);
	changes = netlink(RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
	kernel = netlink(0);
	to.sll_ifindex = link.ifi_index = holder(kernel, arp + 14);
	if (!link.ifi_index)
		return 5;
	ask(kernel, RTM_GETLINK, 0, &link, sizeof link);
	if (recv(kernel, buffer, sizeof buffer, 0) <= 0 ||
	    !(mac = attribute((void *)buffer, sizeof link, IFLA_ADDRESS)))
		fail("link");
	memcpy(arp + 8, mac, 6);
	port = socket(AF_PACKET, SOCK_DGRAM, 0);
	if (recv(changes, buffer, sizeof buffer, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
		return 5;
	if (port < 0 || sendto(port, arp, sizeof arp, 0, (void *)&to, sizeof to) < 0)
		fail("send");
	return 0;
}
