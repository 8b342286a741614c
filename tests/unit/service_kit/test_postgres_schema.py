"""The names of constraints and indexes, the same in every service."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Constraint,
    ForeignKey,
    Index,
    Integer,
    Table,
    UniqueConstraint,
)

from service_kit.postgres.schema import metadata


def names(constraints: set[Constraint]) -> set[str]:
    return {str(constraint.name) for constraint in constraints}


def test_constraints_and_indexes_are_named_by_one_convention() -> None:
    tables = metadata()
    parent = Table("parent", tables, Column("id", Integer, primary_key=True))
    child = Table(
        "child",
        tables,
        Column("parent_id", ForeignKey("parent.id"), index=True),
        Column("kind", Integer),
        CheckConstraint("kind > 0", name="kind_positive"),
        UniqueConstraint("parent_id", "kind"),
    )
    assert names(parent.constraints) == {"pk_parent"}
    assert names(child.constraints - {child.primary_key}) == {
        "fk_child_parent_id",
        "ck_child_kind_positive",
        "uq_child_parent_id_kind",
    }
    assert {str(index.name) for index in child.indexes} == {"ix_child_parent_id"}


def test_an_index_over_several_columns_is_named_by_all_of_them() -> None:
    table = Table("pair", metadata(), Column("a", Integer), Column("b", Integer))
    assert Index(None, table.c.a, table.c.b).name == "ix_pair_a_b"


def test_each_service_has_metadata_of_its_own() -> None:
    assert metadata() is not metadata()
