/* What no static C program can do without: to be started, and to end. */
int main(void)
{
	return 0;
}
