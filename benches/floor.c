/* The least that an announcer can do: send one gratuitous ARP request that was given as it is.
 *
 *     floor INTERFACE SENDER-MAC VIP
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETHERTYPE_ARP),
		.sll_halen = 6,
		.sll_addr = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	};
	unsigned char arp[28] = {0, 1, 8, 0, 6, 4, 0, 1};
	struct ether_addr mac;
	int fd;

	if (argc != 4 || !ether_aton_r(argv[2], &mac) ||
	    inet_pton(AF_INET, argv[3], arp + 14) != 1) {
		fputs("usage: floor INTERFACE SENDER-MAC VIP\n", stderr);
		return 2;
	}
	memcpy(arp + 8, &mac, 6);
	memcpy(arp + 24, arp + 14, 4);
	to.sll_ifindex = if_nametoindex(argv[1]);
	fd = socket(AF_PACKET, SOCK_DGRAM, 0);
	if (fd < 0 || sendto(fd, arp, sizeof arp, 0, (void *)&to, sizeof to) < 0) {
		perror("floor");
		return 1;
	}
	return 0;
}
